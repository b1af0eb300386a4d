"""Receptive fields: the closed form, the limits by level, and theory against gradient.

Paper: espnetv2 Table 1, sec. 3.1 and 3.3; luo for the effective field.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from espnetv2.layers.eesp import EESP, branch_dilations
from espnetv2.models.espnetv2 import LAYOUTS, ESPNetv2Backbone
from espnetv2.profiling.effective_field import EffectiveField, effective_field
from espnetv2.reproduce import style
from espnetv2.reproduce.report import Report
from espnetv2.reproduce.row import Row
from espnetv2.reproduce.sources import Sources

RATES, TAPS, SIDE = (1, 2, 3, 4, 8, 16), (3, 5), 129
LIMITS = {56: 13, 28: 11, 14: 9, 7: 7}
"""Side of a strided unit's result at 224, and the limit that it takes (D14)."""
UNITS = {56: None, 28: 9, 14: 7, 7: 5}
"""The same for the units behind it."""
INPUTS = 4
WINDOWS = (9, 31, 113, 224, 224)
"""Sides of what the figure shows of each stage."""


def build(sources: Sources) -> Report:
    """The table, and fields of every stage with and without fusion."""
    rows = [_closed_form(taps, rate) for taps in TAPS for rate in RATES]
    for limit in sorted(set(LIMITS.values()) | {5}, reverse=True):
        rows += _branches(limit)
    series: dict[str, Any] = {}
    arrays: dict[str, Any] = {}
    for fusion in (True, False):
        sources.say(f"gradients of ESPNetv2 s = 0.5 {'with' if fusion else 'without'} fusion")
        for stage, found in enumerate(stages(fusion=fusion), 1):
            name = f"stage {stage} {'with' if fusion else 'without'} fusion"
            series[name] = {
                "theoretical": found.theoretical[0],
                "extent": round(found.extent, 1),
                "half": found.concentration,
                "holes": round(found.gridding, 4),
                "centre": found.centre,
            }
            arrays[name] = found.gradient.numpy()
            rows += _stage_rows(name, found)
    return Report(
        "receptive-field",
        "Receptive fields",
        "espnetv2 Table 1 and sec. 3.3",
        tuple(rows),
        (
            "The paper's values of the first rows are (n - 1) r + 1, ours the span of a gradient. "
            "Limits are the official list, not the paper's formula ([D14](deviations.md)). "
            f"Stages are those of s = 0.5 at 224x224 with random weights, gradients of {INPUTS} "
            "random pictures; the visible extent is the side of a square of the pixels that get "
            "4.55 % of the strongest gradient or more.",
        ),
        series,
        arrays,
    )


def measured_span(taps: int, rate: int) -> int:
    """Pixels that a dilated convolution spans, by its gradient."""
    reach = (taps - 1) * rate // 2
    layer = nn.Conv2d(1, 1, taps, padding=reach, dilation=rate, bias=False)
    nn.init.ones_(layer.weight)
    gradient = effective_field(layer, (SIDE, SIDE), channels=1, inputs=1).gradient
    rows = torch.nonzero(gradient)[:, 0]
    return int(rows.max() - rows.min()) + 1


def stages(*, fusion: bool) -> list[EffectiveField]:
    """The field behind each of the five stages of s = 0.5, with one seed for all weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = ESPNetv2Backbone(replace(LAYOUTS["s0_5"], fusion=fusion)).eval()

    def stage(index: int, image: Tensor) -> Tensor:
        maps: list[Tensor] = backbone(image)
        return maps[index]

    sizes = range(5)
    return [effective_field(partial(stage, i), (224, 224), inputs=INPUTS) for i in sizes]


def draw(document: dict[str, Any], arrays: dict[str, Any]) -> Any:
    """Five stages, without fusion above and with below; each map by its own strongest pixel."""
    drawn = style.figure(11, 4.9)
    grid = drawn.subplots(2, 5)
    for row, way in zip(grid, ("without", "with"), strict=True):
        for stage, axis in enumerate(row, 1):
            name = f"stage {stage} {way} fusion"
            values, found = arrays[name], document["series"][name]
            strongest = float(values.max())
            style.picture(
                axis,
                _window(values / strongest, found["centre"], WINDOWS[stage - 1]),
                f"stage {stage}, {WINDOWS[stage - 1]}x{WINDOWS[stage - 1]} px",
                caption=f"may see {found['theoretical']:.0f}, sees {found['extent']:.0f} px",
                top=1,
            )
        row[0].set_ylabel(f"{way} fusion", fontsize=10, color=style.INK)
    drawn.suptitle(
        "Gradient of the centre value (square root), ESPNetv2 s = 0.5, 224x224",
        x=0.01,
        ha="left",
        fontsize=11,
        color=style.INK,
    )
    return drawn


def _window(values: Any, centre: tuple[int, int], side: int) -> Any:
    """What the figure shows: a square around the centre, in 32 grades of the square root."""
    if side < len(values):
        top, left = (middle - side // 2 for middle in centre)
        values = values[top : top + side, left : left + side]
    else:  # pairs of pixels: the page shows no more
        values = values.reshape(side // 2, 2, side // 2, 2).mean(axis=(1, 3))
    return (31 * values**0.5).round() / 31


def _closed_form(taps: int, rate: int) -> Row:
    return Row(
        f"{taps} taps, dilation {rate}, pixels",
        str((taps - 1) * rate + 1),
        measured_span(taps, rate),
        "counted",
        note="span of the gradient",
    )


def _branches(limit: int) -> list[Row]:
    """What a unit under a limit has, and what its widest branch sees."""
    dilations = branch_dilations(4, limit)
    unit = EESP(16, 16, max_receptive_field=limit).eval()
    widest = effective_field(lambda x: unit.views(x)[-1], (33, 33), channels=16, inputs=1)
    users = [f"strided to {side}" for side, own in LIMITS.items() if own == limit]
    users += [f"units at {side}" for side, own in UNITS.items() if own == limit]
    return [
        Row(
            f"limit {limit} ({', '.join(users)}), widest branch, pixels",
            str(2 * max(dilations) + 1),
            int(widest.theoretical[0]),
            "counted",
            note=f"dilations {', '.join(map(str, dilations))}",
        )
    ]


def _stage_rows(name: str, found: EffectiveField) -> list[Row]:
    return [
        Row(f"{name}, theoretical field, pixels", "", int(found.theoretical[0]), "counted"),
        Row(f"{name}, visible extent, pixels", "", round(found.extent, 1), "counted"),
        Row(f"{name}, square that holds half, pixels", "", int(found.concentration), "counted"),
    ]
