"""Every network by name. Importing this does not import torch."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from espnetv2.errors import unknown
from espnetv2.models.baselines import BASELINES

if TYPE_CHECKING:
    from torch import nn

    from espnetv2.models.espnet import Skip

Task = Literal["classification", "segmentation", "detection", "language"]


@dataclass(frozen=True)
class Entry:
    """One row of the catalog.

    Attributes:
        build: Makes the network, with fresh weights; takes `num_classes` (a language model's
            words, a detector's classes with background) and `in_channels` by keyword, and the
            network's own options.
        num_classes: What `build` uses when not told otherwise.
        input_size: (height, width) at which multiply-adds are counted; (1, 1), one word, for
            language models.
        paper: Key in docs/papers.bib.
        extra: The extra that must be installed, if any.
        baseline: Whether it is here for comparison only.
    """

    task: Task
    build: Callable[..., nn.Module]
    num_classes: int
    input_size: tuple[int, int]
    paper: str
    extra: str | None = None
    baseline: bool = False


def list_models(
    pattern: str = "*", *, task: Task | None = None, baselines: bool = False
) -> list[str]:
    """Names of the networks, or of those that the papers compare with.

    Args:
        pattern: With `*` and `?`, such as "*seg*".
        task: Only networks for this task.
        baselines: The baselines instead of the networks of this package.

    >>> list_models("espnetv2_s?_0")
    ['espnetv2_s1_0', 'espnetv2_s2_0']
    """
    return [
        name
        for name, row in CATALOG.items()
        if row.baseline == baselines and fnmatch(name, pattern) and task in (None, row.task)
    ]


def entry(name: str) -> Entry:
    """The row of a network; ESPNet v1 also in depths that nobody published.

    Raises:
        UserError: No such network; the closest names are offered.
    """
    if name in CATALOG:
        return CATALOG[name]
    if match := re.fullmatch(r"espnet(_c)?_p(\d+)_q(\d+)", name):
        return _espnet_entry(bool(match[1]), p=int(match[2]), q=int(match[3]))
    raise unknown("model", name, CATALOG)


@cache
def counts() -> dict[str, dict[str, int]]:
    """Parameters and multiply-adds by name, with and without weight tag.

    Computed by tools/write_counts.py; a test holds them against the networks.
    """
    path = Path(__file__).with_name("counts.json")
    content: dict[str, dict[str, int]] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _espnetv2(size: str, *, num_classes: int = 1000, in_channels: int = 3) -> nn.Module:
    from espnetv2.models.espnetv2 import ABLATIONS, LAYOUTS, ESPNetv2

    layout = LAYOUTS[size] if size in LAYOUTS else ABLATIONS[size]
    return ESPNetv2(layout, num_classes=num_classes, in_channels=in_channels)


def _espnetv2_seg(
    size: str, *, num_classes: int = 21, in_channels: int = 3, base_width: int = 16
) -> nn.Module:
    from espnetv2.models.espnetv2_seg import espnetv2_seg

    return espnetv2_seg(
        size, num_classes=num_classes, in_channels=in_channels, base_width=base_width
    )


def _espnetv2_seg_arxiv(size: str, *, num_classes: int = 20, in_channels: int = 3) -> nn.Module:
    from espnetv2.models.espnetv2_seg_arxiv import espnetv2_seg_arxiv

    return espnetv2_seg_arxiv(size, num_classes=num_classes, in_channels=in_channels)


def _espnetv2_ssd(
    size: str, *, num_classes: int = 21, in_channels: int = 3, smallest_prior: float = 0.1
) -> nn.Module:
    from espnetv2.models.espnetv2_ssd import espnetv2_ssd

    return espnetv2_ssd(
        size, num_classes=num_classes, in_channels=in_channels, smallest_prior=smallest_prior
    )


def _espnet(
    p: int, q: int, *, num_classes: int = 20, in_channels: int = 3, skip: Skip = "stem"
) -> nn.Module:
    from espnetv2.models.espnet import ESPNet

    return ESPNet(p=p, q=q, num_classes=num_classes, in_channels=in_channels, skip=skip)


def _espnet_c(p: int, q: int, *, num_classes: int = 20, in_channels: int = 3) -> nn.Module:
    from espnetv2.models.espnet import ESPNetC

    return ESPNetC(p=p, q=q, num_classes=num_classes, in_channels=in_channels)


def _espnet_entry(encoder: bool, *, p: int, q: int) -> Entry:
    build = partial(_espnet_c if encoder else _espnet, p, q)
    return Entry("segmentation", build, 20, (224, 224), "espnet")


def _shufflenetv1(
    groups: int,
    width: float,
    *,
    num_classes: int = 1000,
    in_channels: int = 3,
    shuffle: bool = True,
    squeeze_excitation: bool = False,
) -> nn.Module:
    from espnetv2.models.shufflenetv1 import shufflenetv1

    return shufflenetv1(
        groups,
        width,
        num_classes=num_classes,
        in_channels=in_channels,
        shuffle=shuffle,
        squeeze_excitation=squeeze_excitation,
    )


def _eru_lm(preset: str, *, num_classes: int = 10_000) -> nn.Module:
    from espnetv2.models.eru_lm import eru_lm

    return eru_lm(preset, vocabulary=num_classes)


_WIDTHS = ("s0_5", "s1_0", "s1_25", "s1_5", "s1_75", "s2_0")
_ABLATIONS = (
    "s1_0_no_fusion_no_shortcut",
    "s1_0_no_fusion",
    "s1_0_no_shortcut",
    "s1_0_plain_reduction",
    "s0_5_plain_reduction",
    "s1_0_depthwise",
    "s1_0_dilated",
    "s2_0_depthwise",
)
_SHUFFLENET_WIDTHS = {"x0_25": 0.25, "x0_5": 0.5, "x1_0": 1.0, "x1_5": 1.5, "x2_0": 2.0}


def _espnetv2_rows() -> dict[str, Entry]:
    rows = {}
    for size in (*_WIDTHS, *_ABLATIONS):
        build = partial(_espnetv2, size)
        rows[f"espnetv2_{size}"] = Entry("classification", build, 1000, (224, 224), "espnetv2")
    for size in _WIDTHS:
        build = partial(_espnetv2_seg, size)
        rows[f"espnetv2_seg_{size}"] = Entry("segmentation", build, 21, (384, 384), "espnetv2")
    for size in _WIDTHS:
        build = partial(_espnetv2_seg_arxiv, size)
        row = Entry("segmentation", build, 20, (224, 224), "espnetv2")
        rows[f"espnetv2_seg_arxiv_{size}"] = row
    for side in (300, 512):
        for size in _WIDTHS:
            build = partial(_espnetv2_ssd, size)
            row = Entry("detection", build, 21, (side, side), "espnetv2")
            rows[f"espnetv2_ssd{side}_{size}"] = row
    return rows


def _other_rows() -> dict[str, Entry]:
    rows = {}
    for encoder, kind in ((True, "espnet_c"), (False, "espnet")):
        for q in (3, 5, 8):
            rows[f"{kind}_p2_q{q}"] = _espnet_entry(encoder, p=2, q=q)
    for groups in (1, 2, 3, 4, 8):
        for tag, width in _SHUFFLENET_WIDTHS.items():
            build = partial(_shufflenetv1, groups, width)
            row = Entry("classification", build, 1000, (224, 224), "shufflenet")
            rows[f"shufflenetv1_g{groups}_{tag}"] = row
    for preset in ("7m", "15m"):
        build = partial(_eru_lm, preset)
        rows[f"eru_lm_{preset}"] = Entry("language", build, 10_000, (1, 1), "espnetv2")
    return rows


def _baseline_rows() -> dict[str, Entry]:
    return {
        name: Entry(
            row.task,
            row.build,
            row.num_classes,
            row.input_size,
            "espnetv2",
            extra=row.extra,
            baseline=True,
        )
        for name, row in BASELINES.items()
    }


CATALOG: dict[str, Entry] = {**_espnetv2_rows(), **_other_rows(), **_baseline_rows()}
"""Ours first, then the baselines."""
