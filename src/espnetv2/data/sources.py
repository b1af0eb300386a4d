"""Every layout of training data by name, read into one form: pictures with truth, and counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from espnetv2.data import (
    camvid,
    cityscapes,
    image_folder,
    imagenet,
    mask_folder,
    shards,
    voc_augmented,
)
from espnetv2.data.coco_instances import CocoInstances
from espnetv2.data.csv_table import CsvTable
from espnetv2.data.image_folder import ImageFolder
from espnetv2.data.masked_pictures import MaskedPictures, read_list
from espnetv2.data.sample import Sample
from espnetv2.data.shards import Shards
from espnetv2.data.voc_boxes import VocBoxes
from espnetv2.errors import UserError, unknown

Palette = tuple[tuple[int, int, int], ...]
Classes = Sequence[str] | None


class Source(Protocol):
    """Pictures with truth, before any augmentation.

    Attributes:
        classes: Names by index, as they are matched.
        shown_classes: Names by index, as people read them.
        palette: A colour per class, where there are masks.
        notes: What had to be left out, one line each.
    """

    @property
    def classes(self) -> tuple[str, ...]:
        """Names by index, as they are matched."""
        ...

    @property
    def shown_classes(self) -> tuple[str, ...]:
        """Names by index, as people read them."""
        ...

    @property
    def palette(self) -> Palette | None:
        """A colour per class."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What had to be left out."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any:
        """Something with `image`, `target` and `name`."""
        ...

    def counts(self, index: int, classes: int) -> Tensor:
        """How often each class occurs in one sample, int64 (classes,); reads no picture."""
        ...


class FolderSource:
    """Pictures of one class each, in folders or in shards."""

    palette: Palette | None = None
    notes: Sequence[str] = ()

    def __init__(self, pictures: ImageFolder | Shards, targets: Sequence[int] | np.ndarray) -> None:
        self.pictures, self.targets = pictures, targets
        self.classes = pictures.classes
        self.shown_classes = _readable(pictures.classes)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Sample:
        return self.pictures[index]

    def counts(self, index: int, classes: int) -> Tensor:
        """See `Source`."""
        return torch.eye(classes, dtype=torch.int64)[int(self.targets[index])]


class MaskSource:
    """Pictures with label maps; every value from the number of classes up becomes 255."""

    notes: Sequence[str] = ()

    def __init__(self, pictures: MaskedPictures, classes: Classes = None) -> None:
        self.pictures = pictures
        self.classes = tuple(classes or pictures.classes[: pictures.scored])
        if len(self.classes) > len(pictures.classes):
            raise UserError(
                f"{len(self.classes)} classes are given, but the data set has "
                f"{len(pictures.classes)}; shorten the list"
            )
        self.shown_classes = self.classes
        self.palette: Palette | None = pictures.palette[: len(self.classes)]

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Sample:
        sample = self.pictures[index]
        assert isinstance(sample.target, np.ndarray)
        return Sample(sample.image, self._ignoring(sample.target), sample.name)

    def counts(self, index: int, classes: int) -> Tensor:
        """See `Source`; pixels."""
        labels = self.pictures.read_mask(self.pictures.pairs[index][1])
        return torch.from_numpy(np.bincount(labels.ravel(), minlength=256)[:classes])

    def add_lists(self, lists: Sequence[Path]) -> None:
        """Take in the pairs of list files too, with masks of the same values."""
        for path in lists:
            self.pictures.pairs += read_list(path)

    def _ignoring(self, labels: np.ndarray) -> np.ndarray:
        return np.where(labels < len(self.classes), labels, np.uint8(255))


@dataclass(frozen=True)
class Format:
    """A layout of training data.

    Attributes:
        tasks: What it can train.
        read: Folder, split, classes (or None: find them), task -> the pictures with truth.
    """

    tasks: tuple[str, ...]
    read: Callable[[Path, str, Classes, str], Source]


def _imagefolder(root: Path, split: str, classes: Classes, task: str) -> Source:
    pictures = image_folder.read(root, split, classes=classes)
    return FolderSource(pictures, [target for _, target in pictures.files])


def _webdataset(root: Path, split: str, classes: Classes, task: str) -> Source:
    pictures = shards.read(root, split, classes=classes)
    return FolderSource(pictures, pictures.index.labels)


def _camvid(root: Path, split: str, classes: Classes, task: str) -> Source:
    return MaskSource(camvid.read(root, split), classes)


def _cityscapes(root: Path, split: str, classes: Classes, task: str) -> Source:
    return MaskSource(cityscapes.read(root, split), classes)


def _masks(root: Path, split: str, classes: Classes, task: str) -> Source:
    return MaskSource(mask_folder.read(root, split, classes), classes)


def _voc_seg(root: Path, split: str, classes: Classes, task: str) -> Source:
    return MaskSource(voc_augmented.read(root, split), classes)


def _csv(root: Path, split: str, classes: Classes, task: str) -> Source:
    return CsvTable(root, split, classes, multilabel=task == "multilabel")


def _voc_boxes(root: Path, split: str, classes: Classes, task: str) -> Source:
    return VocBoxes(root, split, classes)


def _coco(root: Path, split: str, classes: Classes, task: str) -> Source:
    return CocoInstances(root, split, classes, multilabel=task == "multilabel")


def _readable(names: tuple[str, ...]) -> tuple[str, ...]:
    """ImageNet's words where every name is one of its ids."""
    if not all(map(imagenet.is_wordnet_id, names)):
        return names
    if len(names) != 1000 and not set(names) <= set(imagenet.IMAGENETTE):
        return names
    words = imagenet.classes()
    return tuple(words[index] for index in imagenet.indices(names) if index is not None)


FORMATS: Mapping[str, Format] = {
    "imagefolder": Format(("classification",), _imagefolder),
    "webdataset": Format(("classification",), _webdataset),
    "csv": Format(("classification", "multilabel"), _csv),
    "masks": Format(("segmentation",), _masks),
    "camvid": Format(("segmentation",), _camvid),
    "cityscapes": Format(("segmentation",), _cityscapes),
    "voc-seg": Format(("segmentation",), _voc_seg),
    "voc-boxes": Format(("detection",), _voc_boxes),
    "coco-boxes": Format(("detection",), _coco),
    "coco-multilabel": Format(("multilabel",), _coco),
}
"""Every layout by name."""


def count_classes(
    format: str, root: Path, split: str, *, progress: Callable[[str, int, int], None] | None = None
) -> tuple[tuple[str, ...], Tensor]:
    """Classes of a split and how often each occurs: pixels, boxes or pictures.

    Raises:
        UserError: The format is unknown, or the data is missing or damaged.
    """
    if format not in FORMATS:
        raise unknown("data format", format, FORMATS)
    kind = FORMATS[format]
    source = kind.read(root, split, None, kind.tasks[-1])  # a table may give many labels
    counts = torch.zeros(len(source.classes), dtype=torch.int64)
    for index in range(len(source)):
        counts += source.counts(index, len(source.classes))
        if progress is not None:
            progress(split, index + 1, len(source))
    return source.shown_classes, counts
