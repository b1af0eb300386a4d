"""Segmentation of PASCAL VOC 2012 by the released networks of the CVPR version.

Paper: espnetv2 (CVPR version); figures as in the official model zoo.
"""

from __future__ import annotations

from typing import Any

from espnetv2.reproduce import counting, style
from espnetv2.reproduce.report import Report
from espnetv2.reproduce.row import Row
from espnetv2.reproduce.sources import Evaluation, Sources

ZOO = {
    ("s0_5", 256): ("75 M", "39.82"),
    ("s1_0", 256): ("136 M", "54.14"),
    ("s1_5", 256): ("215 M", "59.39"),
    ("s2_0", 256): ("338 M", "63.36"),
    ("s0_5", 384): ("168 M", "47.18"),
    ("s1_0", 384): ("306 M", "60.22"),
    ("s1_5", 384): ("483 M", "63.67"),
    ("s2_0", 384): ("760 M", "67.01"),
}
PICTURES, CLASSES = 1449, 21
SAMPLE = "voc2012_seg/val_squashed274"


def build(sources: Sources) -> Report:
    """Counts; mIoU of the whole set needs VOC, of a sample the sample."""
    rows: list[Row] = []
    points = []
    for (size, side), (macs, miou) in ZOO.items():
        weights = f"espnetv2_seg_{size}.edgenets_voc_{side}"
        label = f"s = {size[1:].replace('_', '.')}, {side}x{side}"
        found = counting.count(weights)
        half = CLASSES * side * side // 4 // 2
        rows.append(
            counting.macs(
                weights,
                macs,
                label,
                others=(("with half of the last bias, as the zoo counts", found.macs + half),),
            )
        )
        whole = Evaluation(weights, "voc", "voc", "val", ("void-ignored",))
        rows.append(sources.scores(f"{label}, val mIoU", miou, whole, "mean_iou", data="VOC 2012"))
        sample = _sample(sources, weights, label, miou)
        rows.append(sample)
        points.append(
            {"name": label, "macs": found.macs, "miou": float(miou), "sample": sample.ours}
        )
    return Report(
        "voc",
        "Segmentation of PASCAL VOC 2012",
        "espnetv2 (CVPR version); official model zoo",
        tuple(rows),
        (
            "The zoo's MACs are of convolutions plus half of the last layer's bias additions. A "
            "sample's mIoU is evidence that weights, preprocessing and protocol belong together, "
            "not a VOC score: rare classes have a picture or two in it, or none.",
        ),
        {"points": points},
    )


def draw(document: dict[str, Any], arrays: dict[str, Any]) -> Any:
    """Printed mIoU of the whole set, and ours of the sample."""
    drawn = style.figure(7, 3.8)
    axis = drawn.subplots()
    points = document["series"]["points"]
    for side, colour in (("256x256", style.ORANGE), ("384x384", style.BLUE)):
        own = [p for p in points if p["name"].endswith(side)]
        x = [p["macs"] / 1e6 for p in own]
        axis.plot(x, [p["miou"] for p in own], "o-", color=colour, label=f"{side}, zoo, val set")
        held = [p for p in own if p["sample"] is not None]
        axis.plot(
            [p["macs"] / 1e6 for p in held],
            [p["sample"] for p in held],
            "D",
            mfc="white",
            color=colour,
            label=f"{side}, here, a sample",
        )
    style.panel(axis, "VOC 2012 mIoU, %", x="multiply-adds, millions (counted here)", grid="both")
    style.legend(axis, loc="lower right")
    return drawn


def _sample(sources: Sources, weights: str, label: str, miou: str) -> Row:
    judged = Evaluation(
        weights, "voc", SAMPLE, "val", ("void-ignored",), squashed=True, whole=PICTURES
    )
    return sources.scores(
        f"{label}, mIoU of a sample", miou, judged, "mean_iou", data="a sample of VOC 2012 val"
    )
