"""A data set opened for training: items (input, target), the same for the same seed and epoch."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from espnetv2.data.boxes import Boxes, centred
from espnetv2.data.draws import sample_generator
from espnetv2.data.layout import recognize_layout
from espnetv2.data.preprocess import CONVENTIONS, Preprocessing
from espnetv2.data.sources import FORMATS, MaskSource, Source
from espnetv2.data.transforms import Policy, policy
from espnetv2.data.views import View, cut_boxes, cut_image, cut_mask, whole
from espnetv2.errors import UserError, unknown

IGNORE = 255
"""The target value of unlabelled pixels, whatever the files say."""

Item = tuple[Tensor, Any]


@dataclass(frozen=True)
class DataSpec:
    """What to train on, in plain values.

    Attributes:
        format: Key of `data.sources.FORMATS`; "auto" finds out.
        root: The data set's folder.
        size: (height, width) of the network's input.
        convention: Key of `data.preprocess.CONVENTIONS`.
        augment: Key of `data.transforms.POLICIES`.
        classes: Names by index; found in the data where None.
        skip_bad: Whether samples that cannot be read are left out; every one is then read once
            when the set is opened.
        limit: At most so many samples of each split, spread evenly over it.
        extra: List files of more training pairs, `picture TAB mask` a line; only with masks.
    """

    format: str
    root: Path
    size: tuple[int, int]
    convention: str
    augment: str
    train_split: str = "train"
    val_split: str = "val"
    classes: tuple[str, ...] | None = None
    skip_bad: bool = False
    limit: int | None = None
    extra: tuple[Path, ...] = ()


@dataclass(frozen=True)
class TrainingData:
    """A data set, opened.

    Attributes:
        train: Items (input, target), augmented.
        val: Items as prediction sees them.
        collate: Makes a batch of items, of either.
        classes: Names by index; of a detector without background.
        palette: A colour per class, where there are masks.
        ignore: 255 where there are masks.
        preprocessing: What a network trained on it must be fed with.
        skipped: What was left out, one line each: faulty boxes, and what `skip_bad` found.
        format: Key of `data.sources.FORMATS`, also where the spec said "auto".
    """

    train: TrainingSet
    val: TrainingSet
    collate: Callable[[Sequence[Item]], tuple[Tensor, Any]]
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...] | None
    ignore: int | None
    preprocessing: Preprocessing
    skipped: tuple[str, ...] = ()
    format: str = ""

    def class_counts(self) -> Tensor:
        """How often each class occurs in the training split: pixels, boxes or pictures.

        Reads every mask of a segmentation set.

        Shape: int64 (classes,)
        """
        counts = torch.zeros(len(self.classes), dtype=torch.int64)
        for index in self.train.indices:
            counts += self.train.source.counts(index, len(self.classes))
        return counts


def open_training_data(spec: DataSpec, *, task: str) -> TrainingData:
    """Open both splits of a data set for a task.

    Args:
        task: "classification", "multilabel", "segmentation" or "detection".

    Raises:
        UserError: Unknown names, a format or policy for other tasks, missing or empty data.
    """
    if spec.format == "auto":
        spec = _recognized(spec, task)
    if spec.format not in FORMATS:
        raise unknown("data format", spec.format, ["auto", *FORMATS])
    kind = FORMATS[spec.format]
    if task not in kind.tasks:
        fitting = ", ".join(name for name, other in FORMATS.items() if task in other.tasks)
        raise UserError(
            f"data format {spec.format!r} is for {' and '.join(kind.tasks)}, not {task}; "
            f"choose from {fitting or 'the formats of another task'}"
        )
    preprocessing = training_preprocessing(spec, task)
    augmentation = policy(spec.augment, task=task)
    train = kind.read(spec.root, spec.train_split, spec.classes, task)
    val = kind.read(spec.root, spec.val_split, spec.classes or train.classes, task)
    if spec.extra:
        if not isinstance(train, MaskSource):
            raise UserError(f"data.extra lists masks, but {spec.format} has none; leave it out")
        train.add_lists(spec.extra)
    skipped = [*train.notes, *val.notes]
    pick = partial(_pick, limit=spec.limit, skip_bad=spec.skip_bad, skipped=skipped)
    masks = task == "segmentation"
    return TrainingData(
        # a picture without boxes teaches a detector nothing
        train=TrainingSet(
            train, pick(train, with_objects=task == "detection"), preprocessing, augmentation
        ),
        val=TrainingSet(val, pick(val), preprocessing, None),
        collate=collate,
        classes=train.shown_classes,
        palette=train.palette if masks else None,
        ignore=IGNORE if masks else None,
        preprocessing=preprocessing,
        skipped=tuple(skipped),
        format=spec.format,
    )


def _recognized(spec: DataSpec, task: str) -> DataSpec:
    format, train_split = recognize_layout(spec.root, spec.train_split, task=task)
    _, val_split = recognize_layout(spec.root, spec.val_split, task=task)
    return replace(spec, format=format, train_split=train_split, val_split=val_split)


def training_preprocessing(spec: DataSpec, task: str) -> Preprocessing:
    """The convention at the wanted size; only classification crops, the others see everything."""
    if spec.convention not in CONVENTIONS:
        raise unknown("preprocessing", spec.convention, CONVENTIONS)
    if min(spec.size) < 32:
        raise UserError(f"size {spec.size[0]}x{spec.size[1]} is too small; use 32x32 or more")
    found = CONVENTIONS[spec.convention].resized(spec.size)
    return found if task == "classification" else replace(found, fit="stretch")


class TrainingSet(Dataset[Item]):
    """One split as items (input, target).

    What is drawn for an item is a function of `seed`, the epoch and the index alone: not of the
    workers, nor of what was read before; this is what lets a run resume within an epoch.

    Args:
        source: Pictures with truth.
        indices: Which of the source's samples, in order.
        augmentation: None gives what prediction sees, with the full truth of boxes.
    """

    def __init__(
        self,
        source: Source,
        indices: Sequence[int],
        preprocessing: Preprocessing,
        augmentation: Policy | None,
    ) -> None:
        assert preprocessing.size is not None
        self.source = source
        self.indices = list(indices)
        self.preprocessing = preprocessing
        self.size = preprocessing.size
        self.augmentation = augmentation
        self.seed = 0
        # in shared memory, so that workers that live on see the next epoch
        self._epoch = torch.zeros((), dtype=torch.int64)
        self._epoch.untyped_storage().share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Draw for another epoch from now on."""
        self._epoch.fill_(epoch)

    @property
    def epoch(self) -> int:
        """The epoch that is drawn for."""
        return int(self._epoch)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Item:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{index=} of {len(self)}")
        index %= len(self)
        sample = self.source[self.indices[index]]
        image, truth = sample.image, sample.target
        if self.augmentation is None or self.augmentation.draw is None:
            target = self._target(truth, whole(image), trained=self.augmentation is not None)
            return self.preprocessing(image), target
        generator = sample_generator(self.seed, self.epoch, index)
        boxes = truth.trained()[0] if isinstance(truth, Boxes) else None
        view = self.augmentation.draw(image, self.size, boxes, generator)
        recolour = self.augmentation.recolour
        tensor = cut_image(
            image,
            view,
            self.preprocessing,
            recolour=None if recolour is None else lambda part: recolour(part, generator),
            outside=self.augmentation.outside,
            sharp=self.augmentation.sharp,
        )
        return tensor, self._target(truth, view, trained=True)

    def _target(self, truth: Any, view: View, *, trained: bool) -> Any:
        if isinstance(truth, Boxes):
            return _seen_boxes(truth, view) if trained else truth.relative()
        if isinstance(truth, np.ndarray):
            if truth.ndim == 1:
                return torch.from_numpy(truth)
            return cut_mask(truth, view, self.size, outside=IGNORE)
        return truth


def collate(items: Sequence[Item]) -> tuple[Tensor, Any]:
    """One batch: inputs stacked; targets stacked too, except boxes, which stay a list."""
    images = torch.stack([image for image, _ in items])
    targets = [target for _, target in items]
    if isinstance(targets[0], Tensor):
        return images, torch.stack(targets)
    if isinstance(targets[0], int):
        return images, torch.tensor(targets)
    return images, targets


def _seen_boxes(truth: Boxes, view: View) -> tuple[Tensor, Tensor]:
    boxes, labels = truth.trained()
    kept = centred(boxes, view)
    seen = cut_boxes(boxes[kept], view)
    solid = (seen[:, 2] > seen[:, 0]) & (seen[:, 3] > seen[:, 1])
    return seen[solid], labels[kept][solid]


def _pick(
    source: Source,
    *,
    limit: int | None,
    skip_bad: bool,
    skipped: list[str],
    with_objects: bool = False,
) -> list[int]:
    indices = list(range(len(source)))
    if with_objects:
        classes = len(source.classes)
        indices = [index for index in indices if bool(source.counts(index, classes).any())]
    if limit is not None and limit < len(indices):
        indices = [indices[position * len(indices) // limit] for position in range(limit)]
    if skip_bad:
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            complaints = list(pool.map(partial(_complaint, source), indices))
        skipped += [complaint for complaint in complaints if complaint is not None]
        indices = [i for i, bad in zip(indices, complaints, strict=True) if bad is None]
    if not indices:
        why = f"; the last says: {skipped[-1]}" if skipped else ""
        raise UserError(f"no sample of the split can be used{why}")
    return indices


def _complaint(source: Source, index: int) -> str | None:
    try:
        source[index]
    except UserError as error:
        return str(error)
    return None
