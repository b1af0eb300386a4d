"""Figure 6: several labels a picture on COCO, at growing sizes.

Paper: espnetv2 Fig. 6, sec. 4.1.
"""

from __future__ import annotations

from typing import Any

from espnetv2.reproduce import counting, style
from espnetv2.reproduce.report import Report
from espnetv2.reproduce.row import Row
from espnetv2.reproduce.sources import Sources, needs

SIDES = (224, 448, 672, 896)
TRAIN = "espnetv2 train coco-multilabel --data DATA/coco --weights espnetv2_s2_0.edgenets_in1k"


def build(sources: Sources) -> Report:
    """F1 needs COCO; what the larger pictures cost is counted."""
    rows: list[Row] = [
        needs("ESPNetv2 s = 2.0, class-wise F1 at 224", "63.41", "COCO", TRAIN),
        needs("ESPNetv2 s = 2.0, overall F1 at 224", "69.23", "COCO", TRAIN),
        needs(
            "ShuffleNetv2 1.5x, class-wise F1 at 224",
            "60.42",
            "COCO",
            "espnetv2 train coco-multilabel --data DATA/coco --set model=shufflenet_v2_x1_5",
        ),
        counting.macs("espnetv2_s2_0", "284 M", "ESPNetv2 s = 2.0"),
        counting.macs("shufflenet_v2_x1_5", "299 M", "ShuffleNetv2 1.5x"),
    ]
    rows += [
        counting.macs("espnetv2_s2_0", "", f"ESPNetv2 s = 2.0 at {side}x{side}", size=(side, side))
        for side in SIDES[1:]
    ]
    return Report(
        "fig6",
        "Several labels a picture on COCO",
        "espnetv2 Fig. 6",
        tuple(rows),
        (
            "The paper draws the gain over ShuffleNetv2 at larger pictures and prints F1 at 224 "
            "only. Its COCO is 2014's, the official code's 2017's.",
        ),
        {
            "macs": {
                str(side): counting.count("espnetv2_s2_0", size=(side, side)).macs for side in SIDES
            }
        },
    )


def draw(document: dict[str, Any], arrays: dict[str, Any]) -> Any:
    """F1 as printed, and what each size costs."""
    drawn = style.figure(9, 2.8)
    left, right = drawn.subplots(1, 2)
    names = [
        "ESPNetv2, class-wise",
        "ShuffleNetv2, class-wise",
        "ESPNetv2, overall",
        "ShuffleNetv2, overall",
    ]
    colours = [style.BLUE, style.GREY] * 2
    style.bars(left, names, [63.41, 60.42, 69.23, 67.58], colours=colours, form="{:.2f}")
    style.panel(left, "F1 at 224 as the paper prints it, %", grid="x")
    left.set_xlim(50, 74)
    costs = document["series"]["macs"]
    labels = [f"{side}x{side}" for side in costs]
    style.bars(
        right, labels, [m / 1e9 for m in costs.values()], colours=[style.BLUE] * 4, form="{:.2f}"
    )
    style.panel(right, "Billions of multiply-adds, counted", grid="x")
    return drawn
