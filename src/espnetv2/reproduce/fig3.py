"""Figure 3: accuracy on ImageNet against multiply-adds.

Paper: espnetv2 Fig. 3, sec. 4.1; shufflenet for the accuracies of ShuffleNet v1.
"""

from __future__ import annotations

from typing import Any

from espnetv2.reproduce import counting, style
from espnetv2.reproduce.report import Report
from espnetv2.reproduce.row import Row
from espnetv2.reproduce.sources import Evaluation, Sources, needs

TOP1 = {
    "espnetv2_s0_5": "57.7",
    "espnetv2_s1_0": "66.1",
    "espnetv2_s1_25": "67.9",
    "espnetv2_s1_5": "69.2",
    "espnetv2_s1_75": "about 70.6",
    "espnetv2_s2_0": "72.1",
}
OTHERS = {
    "mobilenet_v1_x0_25": ("MobileNetv1", "34 M", 47.7),
    "mobilenet_v2_x1_0": ("MobileNetv2", "300 M", 71.8),
    "shufflenetv1_g3_x1_0": ("ShuffleNetv1", "137 M", 67.4),
    "shufflenetv1_g3_x1_5": ("ShuffleNetv1", "292 M", 71.5),
    "shufflenet_v2_x0_5": ("ShuffleNetv2", "41 M", 60.3),
    "shufflenet_v2_x1_0": ("ShuffleNetv2", "146 M", 69.4),
    "shufflenet_v2_x1_5": ("ShuffleNetv2", "299 M", 72.6),
}
IMAGENETTE = "results/imagenette_s0_5.json#metrics/top1"


def build(sources: Sources) -> Report:
    """Counts of all networks; accuracies of ours need ImageNet and the released weights."""
    rows: list[Row] = []
    for name, printed in TOP1.items():
        what = f"s = {name.removeprefix('espnetv2_s').replace('_', '.')}, top-1"
        if name == "espnetv2_s1_75":  # no weights were ever released (D25)
            command = "espnetv2 train imagenet_s1_75 --data DATA/imagenet"
            rows.append(needs(what, printed, "ImageNet", command))
            continue
        judged = Evaluation(
            f"{name}.edgenets_in1k", "imagefolder", "imagenet", "val", ("center-crop",), batch=32
        )
        rows.append(sources.scores(what, printed, judged, "top1", data="ImageNet"))
    rows.append(
        sources.committed(
            Row(
                "s = 0.5 on Imagenette (10 classes, 128 pixels), top-1",
                "",
                None,
                "trained here at small scale",
                IMAGENETTE,
                note="another data set than the paper's",
            )
        )
    )
    rows += [_other(name) for name in OTHERS]
    series: dict[str, list[dict[str, Any]]] = {"ESPNetv2": []}
    for name, printed in TOP1.items():
        point = {"macs": counting.count(name).macs, "top1": float(printed.split()[-1])}
        series["ESPNetv2"].append(point)
    for row, (family, _, top1) in zip(rows[-len(OTHERS) :], OTHERS.values(), strict=True):
        series.setdefault(family, []).append({"macs": row.ours, "top1": top1})
    return Report(
        "fig3",
        "Accuracy against multiply-adds on ImageNet",
        "espnetv2 Fig. 3",
        tuple(rows),
        (
            "Accuracies in the figure are the papers'; multiply-adds are counted here, of other "
            "people's networks in the implementations named ([D95](deviations.md)). What weights "
            "trained here reach on ten classes says nothing about 1000.",
        ),
        series,
    )


def draw(document: dict[str, Any], arrays: dict[str, Any]) -> Any:
    """One line a family."""
    drawn = style.figure(7, 4.2)
    axis = drawn.subplots()
    for (family, points), colour in zip(document["series"].items(), style.CYCLE, strict=False):
        x = [point["macs"] / 1e6 for point in points]
        y = [point["top1"] for point in points]
        bold = family == "ESPNetv2"
        axis.plot(
            x, y, "o-", color=colour, lw=2 if bold else 1.2, ms=6 if bold else 4.5, label=family
        )
    style.panel(
        axis, "ImageNet top-1, % (papers')", x="multiply-adds, millions (counted here)", grid="both"
    )
    axis.set_xlim(0, 320)
    style.legend(axis, loc="lower right")
    return drawn


def _other(name: str) -> Row:
    family, printed, _ = OTHERS[name]
    width = name.rpartition("_x")[2].replace("_", ".")
    return counting.macs(name, printed, f"{family} {width}x")
