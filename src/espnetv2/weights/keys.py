"""Official checkpoint names to ours and back; a leftover on either side is an error."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from espnetv2.errors import UserError
from espnetv2.weights import espnet_keys, espnetv2_keys, ssd_keys
from espnetv2.weights.espnetv2_keys import Patterns

_LEAVES = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}


@dataclass(frozen=True)
class Family:
    """The checkpoints of one official network.

    Attributes:
        patterns: Official module <-> ours.
        counts_batches: Whether norms carry `num_batches_tracked`; ESPNet v1's are older.
        idle: What official files hold without purpose (D3), made from the rest of the file.
    """

    name: str
    patterns: Patterns
    counts_batches: bool = True
    idle: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = lambda state: {}


def to_ours(official: Mapping[str, Tensor], family: Family) -> dict[str, Tensor]:
    """Rename an official state dict; a `module.` in front of every key is dropped.

    Raises:
        UserError: Keys that the family does not know, all of them named.
    """
    ours: dict[str, Tensor] = {}
    unknown = []
    for key, value in strip_data_parallel(official).items():
        try:
            name = _translate(key, family.patterns)
        except KeyError:
            unknown.append(key)
            continue
        if name is not None:
            ours[name] = value
    if unknown:
        raise UserError(
            f"{len(unknown)} keys do not belong to {family.name}: {', '.join(sorted(unknown))}"
        )
    if not family.counts_batches:
        means = [name for name in ours if name.endswith(".running_mean")]
        for name in means:
            ours[name.removesuffix("running_mean") + "num_batches_tracked"] = torch.tensor(0)
    return ours


def to_official(ours: Mapping[str, Tensor], family: Family) -> dict[str, Tensor]:
    """The inverse of `to_ours`, complete enough for the official code to load strictly.

    Entries that have no purpose there are filled with their initial values, or zeros for
    convolutions (D3).

    Raises:
        UserError: Keys that the family does not know, all of them named.
    """
    inverse = _inverse(family)
    official: dict[str, Tensor] = {}
    unknown = []
    for name, value in ours.items():
        if name.endswith(".num_batches_tracked") and not family.counts_batches:
            continue
        try:
            key = _translate(name, inverse)
        except KeyError:
            unknown.append(name)
            continue
        assert key is not None
        official[key] = value
    if unknown:
        raise UserError(
            f"{len(unknown)} keys do not belong to {family.name}: {', '.join(sorted(unknown))}"
        )
    return official | family.idle(official)


def strip_data_parallel(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the `module.` that DataParallel puts in front of every key."""
    if state and all(key.startswith("module.") for key in state):
        return {key.removeprefix("module."): value for key, value in state.items()}
    return dict(state)


def is_parameter(key: str) -> bool:
    """Whether a key names a parameter, not a running statistic."""
    return key.rpartition(".")[2] in {"weight", "bias"}


def _translate(key: str, patterns: Patterns) -> str | None:
    module, _, leaf = key.rpartition(".")
    if leaf not in _LEAVES:
        raise KeyError(key)
    for regex, target in _compiled(patterns):
        if match := regex.fullmatch(module):
            if target is None:
                return None
            for index in match.groups():
                target = target.replace("{i}", index, 1)
            return f"{target}.{leaf}"
    raise KeyError(key)


@cache
def _compiled(patterns: Patterns) -> tuple[tuple[re.Pattern[str], str | None], ...]:
    return tuple(
        (re.compile(re.escape(source).replace(r"\{i\}", r"(\d+)")), target)
        for source, target in patterns
    )


@cache
def _inverse(family: Family) -> Patterns:
    return tuple((ours, official) for official, ours in family.patterns if ours is not None)


def _idle_units(state: Mapping[str, Tensor], prefix: str, levels: int) -> dict[str, Tensor]:
    """Slopes of the strided units' own activation, which is never called."""
    idle = {}
    for level in range(2, levels + 1):
        merged = state[f"{prefix}level{level}_0.eesp.conv_1x1_exp.bn.weight"]
        idle[f"{prefix}level{level}_0.eesp.module_act.weight"] = torch.full_like(merged, 0.25)
    return idle


def _idle_classifier(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The idle slopes, and the image shortcut of level 5 if the network has shortcuts."""
    idle = _idle_units(state, "", 5)
    out_channels = state["level5_0.act.weight"].shape[0]
    for key, value in state.items():
        if key.startswith("level4_0.inp_reinf."):
            shape = list(value.shape)
            if key.startswith("level4_0.inp_reinf.1."):
                shape[:1] = [out_channels] * bool(shape)
            fill = 0.25 if ".act." in key else float(key.endswith(("bn.weight", "running_var")))
            idle[key.replace("level4_0", "level5_0")] = torch.full(shape, fill, dtype=value.dtype)
    return idle


CLASSIFIER = Family("the ESPNetv2 classifier", espnetv2_keys.CLASSIFIER, idle=_idle_classifier)
EDGENETS_SEGMENTER = Family(
    "the EdgeNets segmenter",
    espnetv2_keys.EDGENETS_SEGMENTER,
    idle=lambda state: _idle_units(state, "base_net.", 4),
)
ARXIV_SEGMENTER = Family(
    "the arXiv v1 segmenter",
    espnetv2_keys.ARXIV_SEGMENTER,
    idle=lambda state: _idle_units(state, "net.", 4),
)
DETECTOR = Family(
    "the ESPNetv2 detector",
    (*espnetv2_keys.DETECTOR_BACKBONE, *ssd_keys.PATTERNS),
    idle=lambda state: _idle_units(state, "base_net.basenet.", 5),
)
ESPNET = Family("ESPNet v1", espnet_keys.PATTERNS, counts_batches=False)


def family_of(model: str) -> Family | None:
    """The official names of a network of the catalog; None where no official code exists."""
    for prefix, family in (
        ("espnetv2_seg_arxiv_", ARXIV_SEGMENTER),
        ("espnetv2_seg_", EDGENETS_SEGMENTER),
        ("espnetv2_ssd", DETECTOR),
        ("espnetv2_s", CLASSIFIER),
        ("espnet_", ESPNET),
    ):
        if model.startswith(prefix):
            return family
    return None


def idle_parameters(model: str, ours: Mapping[str, Tensor]) -> int:
    """How many parameters the official file has beyond ours, none of which does anything (D3)."""
    family = family_of(model)
    if family is None:
        return 0
    official = to_official(ours, family)
    own = sum(value.numel() for key, value in ours.items() if is_parameter(key))
    return sum(value.numel() for key, value in official.items() if is_parameter(key)) - own
