"""The comparisons of `benchmarks/gpu.py` as data: what is timed beside what, what must hold."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from gpu_sides import Side

STREET = (512, 1024)
RIVALS = {"mobilenet_v2": "mobilenet_v2_x1_0", "shufflenet_v2 x1.5": "shufflenet_v2_x1_5"}


def _training(model: str, size: tuple[int, int], batch: int, first: Side | None) -> list[Side]:
    kind: dict[str, Any] = {"model": model, "train": True, "batch": batch, "size": size}
    return [
        *([] if first is None else [first]),
        Side("fused", kernels="fused", **kind),
        Side("fused, graph", kernels="fused", runner="graph", **kind),
        Side("plain, compiled", runner="compile", **kind),
        Side("fused, compiled", kernels="fused", runner="compile", **kind),
        Side("plain", **kind),
    ]


def _classifying(model: str) -> list[Side]:
    official = Side("official", model, train=True, form="official", batch=256)
    return _training(model, (224, 224), 256, official)


def _passing(batch: int) -> list[Side]:
    model = "espnetv2_s2_0"
    sides = [
        Side("fused, graph", model, kernels="fused", form="deploy", runner="graph", batch=batch),
        Side("plain", model, batch=batch),
        Side("plain, compiled", model, runner="compile", batch=batch),
        Side("deploy form, graph", model, form="deploy", runner="graph", batch=batch),
    ]
    for name, rival in RIVALS.items():
        sides.append(Side(f"{name}, compiled", rival, runner="compile", batch=batch))
        if batch == 1:
            runner = "reduce-overhead"
            sides.append(Side(f"{name}, {runner}", rival, runner=runner, batch=batch))
    return sides


def _street() -> list[Side]:
    kind: dict[str, Any] = {"model": "espnetv2_seg_s1_0", "size": STREET, "class_map": True}
    return [
        Side("fused, graph", kernels="fused", form="deploy", runner="graph", **kind),
        Side("plain", **kind),
        Side("plain, compiled", runner="compile", **kind),
    ]


RIVAL_STEP = Side(
    "mobilenet_v2, compiled", RIVALS["mobilenet_v2"], train=True, runner="compile", batch=256
)
COMPARISONS: dict[str, list[Side]] = {
    "train s = 2.0": [*_classifying("espnetv2_s2_0"), RIVAL_STEP],
    "train s = 1.0": _classifying("espnetv2_s1_0"),
    "pass, batch 1": _passing(1),
    "pass, batch 256": _passing(256),
    "street, batch 1": _street(),
    "street, training": _training("espnetv2_seg_s1_0", STREET, 8, None),
}
"""Sides of a comparison take turns in one process; the most wanted are opened first."""

GRAPHS = [
    Side(f"{name}, batch {batch}", model, form="deploy", runner="graph", batch=batch, **options)
    for batch in (1, 64)
    for name, model, options in [
        ("ESPNetv2 s = 2.0", "espnetv2_s2_0", {"kernels": "fused"}),
        *((name, model, {}) for name, model in RIVALS.items()),
    ]
]
"""Of the paper's Figure 5, each as a CUDA graph."""

ESPNET = Side("ESPNet v1", "espnet_p2_q8", form="deploy", runner="graph", size=STREET)


@dataclass(frozen=True)
class Goal:
    """One line of the table.

    Attributes:
        text: What must hold.
        part: Of `COMPARISONS`, or another part of the document.
        ours: Sides, of which the fastest counts.
        theirs: The side that it stands beside.
        least: Of ours over theirs; None where it is only reported.
        value: Of a side.
        most: Whether `least` is the largest allowed instead.
    """

    text: str
    part: str
    ours: tuple[str, ...]
    theirs: str
    least: float | None
    value: str = "images_per_second"
    most: bool = False


_TRAINED = ("fused", "fused, graph", "fused, compiled")
GOALS = [
    goal
    for part in ("train s = 1.0", "train s = 2.0")
    for goal in (
        Goal(f"{part}, images/s", part, _TRAINED, "official", 3.0),
        Goal(f"{part}, images/s", part, _TRAINED, "plain, compiled", 1.3),
        Goal(f"{part}, peak memory", part, _TRAINED, "official", 0.7, "peak_bytes", most=True),
    )
]
GOALS += [
    Goal("train s = 2.0, images/s", "train s = 2.0", _TRAINED, "mobilenet_v2, compiled", 1.0),
    Goal("pass, batch 1, images/s", "pass, batch 1", ("fused, graph",), "plain", 8.0),
    *(
        Goal("pass, batch 1, images/s", "pass, batch 1", ("fused, graph",), rival, 1.0)
        for rival in ("mobilenet_v2, compiled", "mobilenet_v2, reduce-overhead")
    ),
    *(
        Goal("pass, batch 256, images/s", "pass, batch 256", ("fused, graph",), rival, None)
        for rival in ("plain", "plain, compiled", "mobilenet_v2, compiled")
    ),
    Goal(
        *("pass, batch 256, images/s", "pass, batch 256", ("fused, graph",)),
        *("shufflenet_v2 x1.5, compiled", None),
    ),
    *(
        Goal("street, frames/s", "street, batch 1", ("fused, graph",), rival, None)
        for rival in ("plain", "plain, compiled")
    ),
    Goal("street, training, images/s", "street, training", _TRAINED, "plain, compiled", 1.5),
]


Line = tuple[str, str, str, str, str, str]
"""Of the table: what, ours, theirs, ratio, goal, verdict."""


def judged(goal: Goal, parts: dict[str, Any]) -> Line:
    """Whether a goal is held by what was found."""
    part = parts.get(goal.part)
    sides = part if isinstance(part, dict) else {}
    fastest = max(
        (name for name in goal.ours if isinstance(sides.get(name), dict)),
        key=lambda name: sides[name]["images_per_second"],
        default=None,
    )
    wanted = ("<=" if goal.most else ">=", f"{goal.least:g}") if goal.least else ("reported",)
    sign = " ".join(wanted)
    own = sides[fastest][goal.value] if fastest else None
    other = sides[goal.theirs][goal.value] if isinstance(sides.get(goal.theirs), dict) else None
    name = f"{fastest or goal.ours[0]}"
    if own is None or other is None:
        lacking = [_shown(own, name), _shown(other, goal.theirs)]
        return goal.text, *lacking, "", sign, "not measured"
    ratio = own / other
    held = ratio <= goal.least if goal.most and goal.least else ratio >= (goal.least or 0.0)
    verdict = ("held" if held else "missed") if goal.least else ""
    return goal.text, _shown(own, name), _shown(other, goal.theirs), f"{ratio:.2f}", sign, verdict


OPERATORS = {"pyramid": "pyramid operator", "norms": "norm operator"}
"""Parts of the document that hold rates of bytes, by what the table calls them."""


def operator_lines(parts: dict[str, Any]) -> list[Line]:
    """The operators beside the copy, forward and backward."""
    lines: list[Line] = []
    for name, way in itertools.product(OPERATORS, ("forward", "backward")):
        operator, copy = parts.get(name), parts.get("copy")
        text = f"{OPERATORS[name]}, {way}, bytes/s"
        if not isinstance(operator, dict) or not isinstance(copy, dict):
            lines.append((text, "", "", "", ">= 0.7", "not measured"))
            continue
        own, other = operator["bytes_per_second"][way], copy["bytes_per_second"]
        verdict = "held" if own >= 0.7 * other else "missed"
        shown = (_shown(own, "fused"), _shown(other, "copy"), f"{own / other:.2f}")
        lines.append((text, *shown, ">= 0.7", verdict))
    found = parts.get("pointwise")
    for way in ("forward", "backward"):
        text = f"pointwise operator, {way}, bytes/s"
        if not isinstance(found, dict):
            lines.append((text, "", "", "", "reported", "not measured"))
            continue
        own, other = (found[f"{by}bytes_per_second"][way] for by in ("", "torch_"))
        shown = (_shown(own, "fused"), _shown(other, "torch"), f"{own / other:.2f}")
        lines.append((text, *shown, "reported", ""))
    return lines


def _shown(value: float | None, name: str) -> str:
    return f"{name}: -" if value is None else f"{name}: {value:.3g}"
