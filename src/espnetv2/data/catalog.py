"""Every set of class names and every data set reader, by name. Importing this imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from espnetv2.data import camvid, cityscapes, coco, image_folder, imagenet, voc
from espnetv2.data.sample import Dataset


@dataclass(frozen=True)
class Labels:
    """What a network's outputs mean.

    Attributes:
        classes: Names by index.
        palette: A colour per class, where the data set has one.
        ignore: The target value of unlabelled pixels, if there is one.
    """

    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...] | None = None
    ignore: int | None = None


class _LabelTable(Mapping[str, Labels]):
    """A dictionary whose values are made when first asked for: ImageNet's need torchvision."""

    def __init__(self, makers: dict[str, Callable[[], Labels]]) -> None:
        self._makers = {name: cache(make) for name, make in makers.items()}

    def __getitem__(self, name: str) -> Labels:
        return self._makers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


LABELS: Mapping[str, Labels] = _LabelTable(
    {
        "cityscapes": lambda: Labels(cityscapes.CLASSES, cityscapes.PALETTE, cityscapes.IGNORE),
        "camvid": lambda: Labels(camvid.CLASSES, camvid.PALETTE, camvid.IGNORE),
        "voc": lambda: Labels(voc.CLASSES, voc.PALETTE, voc.IGNORE),
        "coco": lambda: Labels(coco.CLASSES),
        "voc-detection": lambda: Labels(voc.DETECTION_CLASSES),
        "imagenet": lambda: Labels(imagenet.classes()),
    }
)

DATASETS: dict[str, Callable[[Path, str], Dataset]] = {
    "camvid": camvid.read,
    "cityscapes": cityscapes.read,
    "voc": voc.read,
    "imagefolder": image_folder.read,
}
"""Readers by name: the data set's folder and a split -> the samples."""
