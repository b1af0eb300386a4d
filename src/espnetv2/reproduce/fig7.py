"""Figure 7: segmentation of Cityscapes by the arXiv segmenter, and by the released ones.

Paper: espnetv2 Fig. 7, sec. 4.2; CVPR rows as in the official model zoo (D26).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from espnetv2.profiling.complexity import measure
from espnetv2.reproduce import counting, style
from espnetv2.reproduce.report import Report
from espnetv2.reproduce.row import Row
from espnetv2.reproduce.sources import Evaluation, Sources, needs

NETWORKS = {
    "espnetv2_seg_arxiv_s0_5": ("ESPNetv2 s = 0.5", "99 K", "54 M", 54.7),
    "espnetv2_seg_arxiv_s1_5": ("ESPNetv2 s = 1.5", "725 K", "322 M", 62.1),
    "espnet_p2_q8": ("ESPNet", "364 K", "424 M", 60.3),
    "enet": ("ENet", "364 K", "345 M", 58.3),
    "erfnet": ("ERFNet", "2.06 M", "2.45 B", 68.0),
    "segnet": ("SegNet", "29.45 M", "31 B", 57.0),
    "fcn8s": ("FCN-8s", "134 M", "62.71 B", 65.3),
    "pspnet": ("PSPNet", "67 M", "82.78 B", 78.4),
}
ZOO = {
    ("s0_5", "512"): ("47.3", "149 M"),
    ("s0_5", "1024"): ("53.9", "598 M"),
    ("s1_0", "512"): ("52.2", "272 M"),
    ("s1_0", "1024"): ("60.1", "1.09 B"),
    ("s1_5", "512"): ("54.6", "429 M"),
    ("s1_5", "1024"): ("63.8", "1.71 B"),
    ("s2_0", "512"): ("50.4", "675 M"),
    ("s2_0", "1024"): ("66.4", "2.70 B"),
}
CITYSCAPES = "Cityscapes"
FRAMES = "benchmarks/results/native_segmentation.json"


def build(sources: Sources) -> Report:
    """Counts at 224x224, the zoo's at full size; mIoU needs Cityscapes."""
    rows: list[Row] = []
    series = []
    for name, (label, parameters, macs, miou) in NETWORKS.items():
        pair = counting.pair(name, (parameters, macs), label)
        if name == "fcn8s":
            pair[1] = replace(pair[1], note=_padded())
        rows += pair
        series.append({"name": label, "macs": pair[1].ours, "miou": miou})
    for name in ("espnetv2_seg_arxiv_s0_5", "espnetv2_seg_arxiv_s1_5", "espnet_p2_q8"):
        tag = "cityscapes" if name.startswith("espnet_") else "espnetv2_city_1024"
        judged = _cityscapes(f"{name}.{tag}", "test")
        label, *_, miou = NETWORKS[name]
        rows.append(
            needs(
                f"{label}, test mIoU",
                str(miou),
                CITYSCAPES,
                f"{judged.command} --submit DIR",
                note="the server scores the test set",
            )
        )
    rows.append(
        needs(
            "ESPNetv2 as the base network, val mIoU",
            "62.7",
            CITYSCAPES,
            "espnetv2 train cityscapes-arxiv --data DATA/cityscapes "
            "--set model=espnetv2_seg_arxiv_s2_0",
        )
    )
    rows += _zoo(sources) + _speed(sources)
    return Report(
        "fig7",
        "Segmentation of Cityscapes",
        "espnetv2 Fig. 7 (224x224 for MACs); official model zoo for the CVPR networks",
        tuple(rows),
        (
            "arXiv v1 and CVPR describe two decoders ([D26](deviations.md)): their numbers must "
            "not be mixed. Other people's networks are counted in the implementations named, which "
            "need not be those that the paper counted ([D95](deviations.md)); DeepLab v2 is not to "
            "be had.",
        ),
        {"points": series},
    )


def draw(document: dict[str, Any], arrays: dict[str, Any]) -> Any:
    """Printed test mIoU against counted multiply-adds."""
    drawn = style.figure(7, 4)
    axis = drawn.subplots()
    for point in document["series"]["points"]:
        own = point["name"].startswith("ESPNet")
        colour = style.BLUE if own else style.GREY
        axis.plot(point["macs"] / 1e6, point["miou"], "o", color=colour, ms=8 if own else 6)
        style.mark(axis, point["name"], point["macs"] / 1e6, point["miou"])
    axis.set_xscale("log")
    axis.set_xlim(30, 250_000)
    axis.set_ylim(50, 82)
    style.panel(
        axis,
        "Cityscapes test mIoU, % (the paper's)",
        x="multiply-adds at 224x224, millions (counted here)",
        grid="both",
    )
    return drawn


def _cityscapes(weights: str, split: str) -> Evaluation:
    return Evaluation(weights, "cityscapes", "cityscapes", split, ("official",))


def _padded() -> str:
    """FCN-8s pads the picture by 100 pixels; its convolutions are then what the paper prints."""
    from torchvision.models import vgg16

    with torch.device("meta"):
        features = vgg16().features
        features[0].padding = (100, 100)
        for layer in features:
            if isinstance(layer, nn.MaxPool2d):
                layer.ceil_mode = True
        head = (nn.Conv2d(512, 4096, 7), nn.Conv2d(4096, 4096, 1), nn.Conv2d(4096, 20, 1))
        macs = measure(nn.Sequential(features, *head), (224, 224)).macs
    return f"{macs / 1e9:.2f} B with the original's 100 pixels of padding, ours has none (D95)"


def _zoo(sources: Sources) -> list[Row]:
    rows = []
    for (size, side), (miou, macs) in ZOO.items():
        weights = f"espnetv2_seg_{size}.edgenets_city_{side}"
        shape = (int(side) // 2, int(side))
        label = f"CVPR s = {size[1:].replace('_', '.')}, {side}x{shape[0]}"
        half = 20 * shape[0] * shape[1] // 4 // 2
        found = counting.count(weights)
        rows.append(
            counting.macs(
                weights,
                macs,
                label,
                others=(("with half of the last bias, as the zoo counts", found.macs + half),),
            )
        )
        judged = _cityscapes(weights, "val")
        what = f"{label}, val mIoU"
        rows.append(sources.scores(what, miou, judged, "mean_iou", data=CITYSCAPES))
    return rows


def _speed(sources: Sources) -> list[Row]:
    """Milliseconds of the CVPR networks at 1024x512 on our machine, by our engine."""
    return [
        sources.committed(
            Row(
                f"CVPR s = {size[1:].replace('_', '.')}, 1024x512, our engine",
                "",
                None,
                "measured here",
                f"{FRAMES}#rows/espnetv2_seg_{size} native fp32/ms_min",
                unit="ms",
                note="two threads; the paper's 142 and 83 pictures a second are a TitanX's",
            )
        )
        for size in ("s0_5", "s1_0", "s2_0")
    ]
