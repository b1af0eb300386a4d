"""ESPNet v1: its published sizes, its CamVid score from the released weights, Cityscapes.

Paper: espnet; CamVid and Cityscapes figures as in the official README, modules as on its page.
"""

from __future__ import annotations

from typing import Any

from espnetv2.reproduce import counting, style
from espnetv2.reproduce.report import Report
from espnetv2.reproduce.row import Row
from espnetv2.reproduce.sources import Evaluation, Sources, needs

CAMVID = Evaluation(
    "espnet_p2_q8.camvid", "camvid", "camvid", "test", ("void-counted", "void-ignored")
)
RUN = "results/camvid_seg_s0_5.json"
CITYSCAPES = "Cityscapes"


def build(sources: Sources) -> Report:
    """Counts, the CamVid test set, and what needs Cityscapes."""
    rows: list[Row] = [
        *counting.pair("espnet_p2_q8", ("364 K", "424 M"), "ESPNet p = 2, q = 8, 224x224"),
        counting.macs("espnet_p2_q8", "2.2 B", "ESPNet p = 2, q = 8, 512x512", size=(512, 512)),
        counting.parameters("espnet_c_p2_q3", "0.187 M", "ESPNet-C p = 2, q = 3"),
        *_camvid(sources),
        needs(
            "p = 2, q = 8, Cityscapes test mIoU",
            "60.336",
            CITYSCAPES,
            f"{_cityscapes('espnet_p2_q8', 'test').command} --submit DIR",
            note="the server scores the test set",
        ),
        *(
            sources.scores(
                f"{what} p = 2, q = 8, Cityscapes val mIoU",
                printed,
                _cityscapes(name, "val"),
                "mean_iou",
                data=CITYSCAPES,
            )
            for name, what, printed in (
                ("espnet_p2_q8", "ESPNet", "61.4"),
                ("espnet_c_p2_q8", "ESPNet-C", "53.3"),
            )
        ),
        needs(
            "VOC 2012 test mIoU",
            "63.01",
            "VOC 2012 with SBD and COCO",
            "espnetv2 train voc-segmentation --data DATA/voc --set model=espnet_p2_q8",
            note="no weights were released for it",
        ),
        sources.committed(
            Row(
                "ESPNetv2 s = 0.5 on CamVid test, void ignored, mIoU",
                "",
                None,
                "trained here at small scale",
                f"{RUN}#other_splits/test/mean_iou",
                note="no weights but CamVid's 367 training pictures",
            )
        ),
    ]
    return Report(
        "espnet",
        "ESPNet v1",
        "espnet; official README and project page",
        tuple(rows),
        (
            "The README's CamVid score counts void pixels as false positives; leaving them out, as "
            "most do today, the same file scores higher.",
        ),
        {"per_class": _classes(sources)},
    )


def draw(document: dict[str, Any], arrays: dict[str, Any]) -> Any:
    """IoU of every CamVid class under both protocols, and recall."""
    classes = document["series"]["per_class"]
    drawn = style.figure(7.6, 4.4)
    axis = drawn.subplots()
    names = list(classes)
    for offset, key, colour, label in (
        (-0.2, "void-counted", style.BLUE, "IoU, void counted (README)"),
        (0.2, "void-ignored", style.ORANGE, "IoU, void ignored"),
    ):
        places = [index + offset for index in range(len(names))]
        drawn_bars = axis.barh(
            places, [classes[n][key] for n in names], height=0.38, color=colour, label=label
        )
        axis.bar_label(drawn_bars, fmt="{:.1f}", padding=3, fontsize=8, color=style.INK)
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.set_xlim(0, 105)
    style.panel(axis, "CamVid test, ESPNet p = 2, q = 8, released weights, %", grid="x")
    style.legend(axis, loc="lower right")
    return drawn


def _cityscapes(name: str, split: str) -> Evaluation:
    return Evaluation(f"{name}.cityscapes", "cityscapes", "cityscapes", split, ("official",))


def _camvid(sources: Sources) -> list[Row]:
    wanted = (
        ("mIoU", "55.64", "mean_iou", "void-counted"),
        ("class average", "68.30", "mean_recall", "void-counted"),
        ("mIoU, void ignored", "", "mean_iou", "void-ignored"),
    )
    return [
        sources.scores(
            f"p = 2, q = 8, CamVid test, {label}",
            printed,
            CAMVID,
            metric,
            protocol=protocol,
            data="CamVid",
        )
        for label, printed, metric, protocol in wanted
    ]


def _classes(sources: Sources) -> dict[str, dict[str, float]]:
    found = sources.scored(CAMVID)
    if found is None:
        return {}
    table: dict[str, dict[str, float]] = {}
    for protocol, classes in found["per_class"].items():
        for name, values in classes.items():
            table.setdefault(name, {})[protocol] = values["iou"]
    return table
