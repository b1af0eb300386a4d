"""Convolution types in the EESP unit: depth-wise dilated, depth-wise, and full dilated.

Paper: espnetv2 (CVPR) ablation; the text gives +1.4 points for dilation, and 69.2 at 426 M for
full dilated convolutions.
"""

from __future__ import annotations

from typing import Any

from espnetv2.reproduce import counting, style
from espnetv2.reproduce.report import Report
from espnetv2.reproduce.row import Row
from espnetv2.reproduce.sources import Sources, needs

KINDS = {
    "espnetv2_s1_0": "depth-wise dilated",
    "espnetv2_s1_0_depthwise": "depth-wise",
    "espnetv2_s1_0_dilated": "full dilated",
}


def build(sources: Sources) -> Report:
    """Count the three at s = 1.0, and s = 2.0 as the paper prints it."""
    rows: list[Row] = []
    series = {}
    for name, kind in KINDS.items():
        rows += counting.pair(name, ("", ""), f"{kind}, s = 1.0")
        found = counting.count(name)
        series[kind] = {"parameters": found.parameters, "macs": found.macs}
    rows += [
        counting.macs("espnetv2_s2_0", "284 M", "depth-wise dilated, s = 2.0"),
        counting.macs("espnetv2_s2_0_depthwise", "284 M", "depth-wise, s = 2.0"),
        needs(
            "depth-wise dilated, s = 2.0, top-1",
            "72.1",
            "ImageNet",
            "espnetv2 train imagenet --data DATA/imagenet",
        ),
        needs(
            "depth-wise, s = 2.0, top-1",
            "70.7",
            "ImageNet",
            "espnetv2 train imagenet --data DATA/imagenet --set model=espnetv2_s2_0_depthwise",
            note="printed as 1.4 below the dilated one",
        ),
        needs(
            "full dilated, top-1",
            "69.2",
            "ImageNet",
            "espnetv2 train imagenet --data DATA/imagenet --set model=espnetv2_s1_0_dilated",
            note="printed for 426 M multiply-adds, a width that is not told",
        ),
    ]
    return Report(
        "convolutions",
        "Convolution types in the EESP unit",
        "espnetv2 (CVPR version), ablation",
        tuple(rows),
        (
            "Dilation is free: the dilated and the plain network cost the same to the digit. No "
            "width of the published six has 426 M multiply-adds with full dilated convolutions; "
            "at s = 1.0 it has "
            f"{series['full dilated']['macs'] / 1e6:.0f} M.",
        ),
        series,
    )


def draw(document: dict[str, Any], arrays: dict[str, Any]) -> Any:
    """Both costs as bars."""
    drawn = style.figure(9, 2.3)
    left, right = drawn.subplots(1, 2)
    names = list(document["series"])
    colours = [style.BLUE, style.GREY, style.ORANGE]
    for axis, key, title in (
        (left, "macs", "Multiply-adds, millions, s = 1.0"),
        (right, "parameters", "Parameters, millions"),
    ):
        values = [document["series"][name][key] / 1e6 for name in names]
        style.bars(axis, names, values, colours=colours, form="{:.1f}")
        style.panel(axis, title, grid="x")
    right.set_yticklabels([])
    return drawn
