"""Gridding: the holes that dilated convolutions leave, and what fusion and depth do to them.

Paper: espnetv2 sec. 3.2 and 5 (hierarchical feature fusion); espnet for its unit.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from espnetv2.layers.eesp import EESP
from espnetv2.layers.esp import ESP
from espnetv2.profiling.effective_field import EffectiveField, effective_field
from espnetv2.reproduce import style
from espnetv2.reproduce.report import Report
from espnetv2.reproduce.row import Row
from espnetv2.reproduce.sources import Sources

WIDTH, LIMIT, DEPTHS = 16, 13, (1, 2, 3, 4)
ESP_DILATIONS = (1, 2, 4, 8, 16)
INPUTS = 4


def build(sources: Sources) -> Report:
    """Holes of branches, of ESPNet v1's branches, and of stacked units, with and without fusion."""
    rows: list[Row] = []
    series: dict[str, Any] = {}
    arrays: dict[str, Any] = {}
    for fusion in (True, False):
        way = "with" if fusion else "without"
        for branch in range(4):
            found = branch_field(branch, fusion=fusion)
            rows.append(_holes(f"EESP, branch of dilation {branch + 1}, {way} fusion", found))
            _keep(series, arrays, f"branch {branch + 1} {way}", found)
    for index, dilation in enumerate(ESP_DILATIONS):
        for fusion in (True, False):
            found = esp_field(index, fusion=fusion)
            way = "with" if fusion else "without"
            rows.append(_holes(f"ESP (v1), branch of dilation {dilation}, {way} fusion", found))
    for depth in DEPTHS:
        for fusion in (True, False):
            found = stacked(depth, fusion=fusion)
            way = "with" if fusion else "without"
            what = f"{depth} EESP in a row, one channel, {way} fusion"
            rows.append(_holes(what, found))
            rows.append(Row(f"{what}, roughness", "", round(found.roughness, 3), "counted"))
            _keep(series, arrays, f"{depth} units {way}", found)
    return Report(
        "gridding",
        "Holes of dilated convolutions, and fusion",
        "espnetv2 sec. 3.2: fusion removes gridding artifacts",
        tuple(rows),
        (
            "Holes are the share of the pixels inside the theoretical field that receive no "
            "gradient; roughness is the mean difference of neighbours over the mean: 0 is flat, 2 "
            "are lone pixels. The paper prints no number for either.",
            "Fusion fills a branch's field with what nearer branches see, at no multiply-add. "
            "Depth closes holes with and without it; without fusion what is left stays a "
            "checkerboard at any depth, with fusion it grows smooth.",
        ),
        series,
        arrays,
    )


def branch_field(index: int, *, fusion: bool) -> EffectiveField:
    """What one branch of an EESP unit sees behind the fusion."""
    unit = _unit(fusion=fusion)
    return effective_field(lambda x: unit.views(x)[index], (33, 33), channels=WIDTH, inputs=INPUTS)


def esp_field(index: int, *, fusion: bool) -> EffectiveField:
    """The same of ESPNet v1's unit; its first branch stays out of the sums (D30)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unit = ESP(20, 20).eval()

    def branch(x: Tensor) -> Tensor:
        reduced = unit.reduce(x)
        first = 1 if fusion and index else index
        parts = [unit.branches[i](reduced) for i in range(first, index + 1)]
        return torch.stack(parts).sum(0)

    return effective_field(branch, (65, 65), channels=20, inputs=INPUTS)


def stacked(depth: int, *, fusion: bool) -> EffectiveField:
    """The last channel behind several units: it comes from the widest branch alone."""
    units = nn.Sequential(*(_unit(fusion=fusion, seed=i) for i in range(depth)))
    return effective_field(partial(_last, units), (49, 49), channels=WIDTH, inputs=INPUTS)


def draw(document: dict[str, Any], arrays: dict[str, Any]) -> Any:
    """Branches at the left, stacked units at the right; black pixels receive nothing."""
    drawn = style.figure(11.5, 4.2)
    names = [f"branch {i}" for i in (1, 2, 3, 4)] + [f"{depth} units" for depth in DEPTHS]
    grid = drawn.subplots(2, len(names))
    for row, way in zip(grid, ("without", "with"), strict=True):
        for axis, name in zip(row, names, strict=True):
            found = document["series"][f"{name} {way}"]
            touched = arrays[f"{name} {way}"]
            title = f"dilation {name[-1]}" if name.startswith("branch") else name
            title = title.replace("1 units", "1 unit")
            caption = f"{found['holes']:.0f} % holes"
            if name.endswith("units"):
                caption += f", rough {found['roughness']:.1f}"
            style.picture(axis, touched, title, caption=caption, top=1)
        row[0].set_ylabel(f"{way} fusion", fontsize=10, color=style.INK)
    drawn.suptitle(
        "What a branch, and one channel behind stacked EESP units, receives from each pixel "
        "(gradient, fourth root)",
        x=0.01,
        ha="left",
        fontsize=11,
        color=style.INK,
    )
    return drawn


def _unit(*, fusion: bool, seed: int = 0) -> EESP:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return EESP(WIDTH, WIDTH, max_receptive_field=LIMIT, fusion=fusion).eval()


def _last(units: nn.Module, x: Tensor) -> Tensor:
    out: Tensor = units(x)
    return out[:, -1:]


def _holes(what: str, found: EffectiveField) -> Row:
    return Row(f"{what}, holes", "", round(100 * found.gridding, 2), "counted", unit="%")


def _keep(series: dict[str, Any], arrays: dict[str, Any], name: str, found: EffectiveField) -> None:
    series[name] = {
        "holes": round(100 * found.gridding, 2),
        "theoretical": found.theoretical[0],
        "extent": round(found.extent, 2),
        "roughness": round(found.roughness, 3),
    }
    seen = found.inside
    arrays[name] = ((seen / seen.max()) ** 0.25).numpy()
