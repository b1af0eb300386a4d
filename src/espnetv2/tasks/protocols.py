"""Named evaluation protocols: what a score means is as much a matter of these as of the network.

The same file of weights scores 55.65 or 57.17 on CamVid, by the treatment of void alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from espnetv2.errors import UserError, unknown


@dataclass(frozen=True)
class SegmentationProtocol:
    """Where predictions meet labels, and what becomes of unlabelled pixels.

    Attributes:
        at: "picture" enlarges predictions to the labels' own size; "network" resizes labels to
            the network's size by nearest neighbour.
        enlarge: How predictions are enlarged: "nearest" the label map, "bilinear" the logits.
        void: Whether unlabelled pixels stay in the count, so that a class predicted on them is a
            false positive. The averages never include void.
        summary: One line for people.
    """

    task: ClassVar[str] = "segmentation"
    at: Literal["picture", "network"]
    enlarge: Literal["nearest", "bilinear"]
    void: bool
    summary: str


@dataclass(frozen=True)
class ClassificationProtocol:
    """How often the true class is the best, or among the best few.

    Attributes:
        top: The few.
        summary: One line for people.
    """

    task: ClassVar[str] = "classification"
    top: tuple[int, ...]
    summary: str


@dataclass(frozen=True)
class MultiLabelProtocol:
    """Which classes are in a picture: F1 and average precision.

    Attributes:
        summary: One line for people.
    """

    task: ClassVar[str] = "classification"
    summary: str


@dataclass(frozen=True)
class DetectionProtocol:
    """Whose average precision.

    Attributes:
        measure: "voc" averages over all recalls, "voc-2007" over eleven, "coco" over 101 and
            over ten overlaps.
        summary: One line for people.
    """

    task: ClassVar[str] = "detection"
    measure: Literal["voc", "voc-2007", "coco"]
    summary: str


@dataclass(frozen=True)
class LanguageProtocol:
    """How well the next word is predicted.

    Attributes:
        summary: One line for people.
    """

    task: ClassVar[str] = "language"
    summary: str


Protocol = (
    SegmentationProtocol
    | ClassificationProtocol
    | MultiLabelProtocol
    | DetectionProtocol
    | LanguageProtocol
)

PROTOCOLS: dict[str, Protocol] = {
    "void-counted": SegmentationProtocol(
        at="picture",
        enlarge="nearest",
        void=True,
        summary="labels' size, void pixels count as false positives (ESPNet's CamVid score)",
    ),
    "void-ignored": SegmentationProtocol(
        at="picture",
        enlarge="nearest",
        void=False,
        summary="labels' size, void pixels left out (the usual one)",
    ),
    "train-size": SegmentationProtocol(
        at="network",
        enlarge="nearest",
        void=False,
        summary="network's size, labels shrunk by nearest; also as EdgeNets' training meter has it",
    ),
    "official": SegmentationProtocol(
        at="picture",
        enlarge="nearest",
        void=False,
        summary="Cityscapes' scripts: arg-max, nearest to 2048x1024, 19 classes, void left out",
    ),
    "full-size-bilinear": SegmentationProtocol(
        at="picture",
        enlarge="bilinear",
        void=False,
        summary="logits enlarged bilinearly to the labels' size, void left out",
    ),
    "center-crop": ClassificationProtocol(
        top=(1, 5), summary="one centre crop per picture, top-1 and top-5"
    ),
    "f1": MultiLabelProtocol(
        summary="whole pictures squashed to the input's size, classes above probability 0.5"
    ),
    "voc-11-point": DetectionProtocol(
        measure="voc-2007",
        summary="VOC 2007: IoU 0.5, mean precision at eleven recalls, difficult boxes ignored",
    ),
    "voc-all-point": DetectionProtocol(
        measure="voc",
        summary="VOC since 2010: IoU 0.5, area under the curve, difficult boxes ignored",
    ),
    "coco": DetectionProtocol(
        measure="coco", summary="COCO: mean over IoU 0.50 to 0.95, the best 100 boxes of a picture"
    ),
    "perplexity": LanguageProtocol(
        summary="exp of the mean loss of a word, sentence ends included, state carried on"
    ),
}

DEFAULTS: dict[str, tuple[str, ...]] = {
    "camvid": ("void-counted", "void-ignored"),
    "cityscapes": ("official",),
    "voc": ("void-ignored",),
    "masks": ("void-ignored",),
    "imagefolder": ("center-crop",),
    "csv": ("center-crop",),
    "csv-multilabel": ("f1",),
    "coco-multilabel": ("f1",),
    "voc-boxes": ("voc-11-point", "voc-all-point"),
    "coco-boxes": ("coco",),
    "text": ("perplexity",),
}
"""By data set; what the published figures use, where that is known."""


def choose(names: Sequence[str], *, dataset: str) -> tuple[str, ...]:
    """The protocols that a user asked for: none is the data set's default, "all" every one.

    Raises:
        UserError: An unknown name, or a protocol of another task.
    """
    default = DEFAULTS[dataset]
    kind = type(PROTOCOLS[default[0]])
    fitting = tuple(name for name, protocol in PROTOCOLS.items() if type(protocol) is kind)
    if "all" in names:
        # the two are one protocol; only Cityscapes' own name for it makes sense there
        twin = "void-ignored" if dataset == "cityscapes" else "official"
        return tuple(name for name in fitting if name != twin)
    for name in names:
        if name not in PROTOCOLS:
            raise unknown("protocol", name, [*fitting, "all"])
        if name not in fitting:
            raise UserError(
                f"protocol {name!r} does not fit {dataset}; choose from {', '.join(fitting)}"
            )
    return tuple(dict.fromkeys(names)) or default
