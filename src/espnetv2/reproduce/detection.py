"""Detection by ESPNetv2-SSD on VOC 2007 and COCO.

Paper: espnetv2 (CVPR version); figures as in the official model zoo. ssd for the method.
"""

from __future__ import annotations

from espnetv2.reproduce import counting
from espnetv2.reproduce.report import Report
from espnetv2.reproduce.row import Row
from espnetv2.reproduce.sources import Evaluation, Sources

ZOO = {
    ("300", "voc"): ("4.75 M", "0.9 B"),
    ("512", "voc"): ("4.75 M", "2.5 B"),
    ("300", "coco"): ("5.81 M", "1.1 B"),
    ("512", "coco"): ("5.81 M", "3.2 B"),
}
SCORES = {
    ("300", "voc"): {"ap11": "70.27"},
    ("512", "voc"): {"ap11": "75.01"},
    ("300", "coco"): {"ap": "20.80", "ap50": "37.05", "ap75": "20.36"},
    ("512", "coco"): {"ap": "24.54", "ap50": "42.04", "ap75": "25.21"},
}
METRICS = {"ap11": "ap50"}
BCCD = "results/bccd_ssd512_s0_5.json"


def build(sources: Sources) -> Report:
    """Counts; AP needs VOC 2007 or COCO; one detector was trained here on blood cells."""
    rows: list[Row] = []
    for (side, data), (parameters, macs) in ZOO.items():
        weights = f"espnetv2_ssd{side}_s2_0.edgenets_{data}"
        label = f"s = 2.0, {side}, {'VOC' if data == 'voc' else 'COCO'}"
        rows += counting.pair(weights, (parameters, macs), label)
        judged = _voc(weights) if data == "voc" else _coco(weights)
        for metric, printed in SCORES[side, data].items():
            name = {"ap11": "mAP (11 points)", "ap": "AP", "ap50": "AP50", "ap75": "AP75"}[metric]
            rows.append(
                sources.scores(
                    f"{label}, {name}",
                    printed,
                    judged,
                    METRICS.get(metric, metric),
                    data="VOC 2007" if data == "voc" else "COCO",
                )
            )
    for split, key in (("test", "other_splits/test/voc-11-point"), ("val", "metrics/ap11")):
        rows.append(
            sources.committed(
                Row(
                    f"s = 0.5, 512, blood cells (BCCD), {split} mAP (11 points)",
                    "",
                    None,
                    "trained here at small scale",
                    f"{BCCD}#{key}",
                    note="another data set than the paper's",
                )
            )
        )
    return Report(
        "detection",
        "Detection with ESPNetv2-SSD",
        "espnetv2 (CVPR version); official model zoo",
        tuple(rows),
        (
            "The CVPR abstract's gain of 4.4 AP over YOLOv2 would be about 26.0 on COCO; the "
            "released file is printed with 24.54.",
        ),
    )


def _voc(weights: str) -> Evaluation:
    return Evaluation(weights, "voc-boxes", "VOCdevkit/VOC2007", "test", ("voc-11-point",))


def _coco(weights: str) -> Evaluation:
    return Evaluation(weights, "coco-boxes", "coco", "val2017", ("coco",))
