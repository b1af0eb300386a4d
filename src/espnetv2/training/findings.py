"""What a trained network gets right and wrong on the validation split, class by class."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from espnetv2.data.boxes import Boxes
from espnetv2.data.training_sets import TrainingData
from espnetv2.tasks.box_ap import VOC_PIXEL, FoundBoxes, TrueBoxes, voc_average_precision
from espnetv2.tasks.confusion import Confusion, accuracy, iou, recall
from espnetv2.tasks.detect import decode
from espnetv2.tasks.detection_metric import mean
from espnetv2.tasks.detection_training import Answer, look
from espnetv2.tasks.multilabel import judge
from espnetv2.tasks.results import Detections
from espnetv2.training.recipe import Recipe
from espnetv2.training.saving import leave_interrupts_to_the_main_process


@dataclass(frozen=True, eq=False)
class Findings:
    """The outcome of one walk over a split.

    Attributes:
        measure: What `per_class` holds: "accuracy", "IoU", "F1" or "AP50".
        unit: What `counts` counts: "pictures", "pixels" or "boxes".
        scores: Of the whole split, per cent, named as in the history.
        per_class: float64 (classes,), 0 to 1; nan for a class that does not occur.
        counts: True pictures, pixels or boxes of each class, int64 (classes,).
        confusion: True class by row, predicted class by column, int64 (classes, classes); None
            where classes do not exclude each other.
        wrong: Which pictures got another class than their own, bool (pictures,); None for other
            tasks than classification.
        pictures: How many were judged.
    """

    measure: str
    unit: str
    scores: dict[str, float]
    per_class: np.ndarray
    counts: np.ndarray
    confusion: np.ndarray | None
    wrong: np.ndarray | None
    pictures: int


def find(network: nn.Module, data: TrainingData, recipe: Recipe, *, limit: int | None) -> Findings:
    """Judge the network, in evaluation mode, on the validation split.

    The scores are those of training's validation. Metrics that gather over processes are left
    alone: the first process calls this while the others may be gone.

    Args:
        network: On the device to use; its mode is put back.
        data: Validation items in their order.
        recipe: Tells task, batch size and workers.
        limit: Batches, at most.
    """
    count = _COUNTS[recipe.task](data.classes)
    loader = DataLoader(
        data.val,
        batch_size=recipe.data.batch_size,
        collate_fn=data.collate,
        num_workers=recipe.data.workers,
        worker_init_fn=leave_interrupts_to_the_main_process,
    )
    pictures = 0
    with evaluating(network, recipe.task) as run:
        for images, targets in islice(loader, limit):
            count.update(run(images), targets)
            pictures += len(images)
    return count.found(pictures)


@contextmanager
def evaluating(network: nn.Module, task: str) -> Iterator[Callable[[Tensor], Any]]:
    """Evaluation mode without gradients: gives the call from images to outputs.

    A detector's outputs come with their priors. The mode is put back.
    """
    training = network.training
    network.eval()
    device = next(network.parameters()).device
    forward = look if task == "detection" else nn.Module.__call__
    try:
        with torch.inference_mode():
            yield lambda images: forward(network, images.to(device))
    finally:
        network.train(training)


class _Count(Protocol):
    def update(self, outputs: Any, targets: Any) -> None: ...

    def found(self, pictures: int) -> Findings: ...


class _ClassCount:
    def __init__(self, classes: tuple[str, ...]) -> None:
        self.confusion = Confusion(len(classes))
        self.wrong: list[np.ndarray] = []

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        answers, truth = outputs.argmax(1).cpu().numpy(), targets.numpy()
        self.confusion.update(answers, truth)
        self.wrong.append(answers != truth)

    def found(self, pictures: int) -> Findings:
        counts = self.confusion.counts[:-1, :-1]
        return Findings(
            measure="accuracy",
            unit="pictures",
            scores={"top1": 100 * accuracy(counts)},
            per_class=recall(counts),
            counts=counts.sum(1),
            confusion=counts,
            wrong=np.concatenate(self.wrong),
            pictures=pictures,
        )


class _PixelCount:
    def __init__(self, classes: tuple[str, ...]) -> None:
        self.confusion = Confusion(len(classes))

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        if outputs.shape[-2:] != targets.shape[-2:]:  # as validation has it
            outputs = F.interpolate(
                outputs, targets.shape[-2:], mode="bilinear", align_corners=True
            )
        self.confusion.update(outputs.argmax(1).cpu().numpy(), targets.numpy())

    def found(self, pictures: int) -> Findings:
        counts = self.confusion.counts[:-1, :-1]  # without void
        shares = iou(counts)
        return Findings(
            measure="IoU",
            unit="pixels",
            scores={"miou": 100 * mean(shares), "accuracy": 100 * accuracy(counts)},
            per_class=shares,
            counts=counts.sum(1),
            confusion=counts,
            wrong=None,
            pictures=pictures,
        )


class _LabelCount:
    def __init__(self, classes: tuple[str, ...]) -> None:
        self.logits: list[Tensor] = []
        self.targets: list[Tensor] = []

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self.logits.append(outputs.float().cpu())
        self.targets.append(targets)

    def found(self, pictures: int) -> Findings:
        scores = judge(torch.cat(self.logits), torch.cat(self.targets))
        positives = scores.positives.numpy()
        return Findings(
            measure="F1",
            unit="pictures",
            scores={
                "f1_overall": 100 * scores.overall_f1,
                "f1_class": 100 * scores.class_f1,
                "map": 100 * scores.mean_average_precision,
            },
            per_class=np.where(positives > 0, scores.f1.numpy(), np.nan),
            counts=positives,
            confusion=None,
            wrong=None,
            pictures=pictures,
        )


class _BoxCount:
    def __init__(self, classes: tuple[str, ...]) -> None:
        self.classes = classes
        self.answers: list[Detections] = []
        self.truths: list[Boxes] = []

    def update(self, outputs: Answer, targets: list[Boxes]) -> None:
        self.answers += decode(
            outputs.raw,
            outputs.priors,
            [one.size for one in targets],
            self.classes,
            max_detections=None,
            clip=False,
        )
        self.truths += targets

    def found(self, pictures: int) -> Findings:
        found = FoundBoxes(
            np.repeat(np.arange(pictures), [len(one) for one in self.answers]),
            np.concatenate([one.labels for one in self.answers]),
            np.concatenate([one.scores for one in self.answers]),
            np.concatenate([one.boxes for one in self.answers]),
        )
        scale = [torch.tensor([width, height] * 2) for height, width in map(_size, self.truths)]
        truth = TrueBoxes(
            np.repeat(np.arange(pictures), [len(one.boxes) for one in self.truths]),
            torch.cat([one.labels - 1 for one in self.truths]).numpy(),
            torch.cat([one.difficult | one.crowd for one in self.truths]).numpy(),
            torch.cat([b.boxes * s for b, s in zip(self.truths, scale, strict=True)]).numpy(),
        )
        classes = len(self.classes)
        precision = voc_average_precision(found, truth, classes=classes, pixel=VOC_PIXEL)
        return Findings(
            measure="AP50",
            unit="boxes",
            scores={"ap50": 100 * mean(precision)},
            per_class=precision,
            counts=np.bincount(truth.labels[~truth.difficult], minlength=classes),
            confusion=None,
            wrong=None,
            pictures=pictures,
        )


def _size(truth: Boxes) -> tuple[int, int]:
    return truth.size


_COUNTS: dict[str, type[_ClassCount | _PixelCount | _LabelCount | _BoxCount]] = {
    "classification": _ClassCount,
    "segmentation": _PixelCount,
    "multilabel": _LabelCount,
    "detection": _BoxCount,
}
