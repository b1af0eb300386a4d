"""What is kept of a detector's boxes while pictures go by, for several measures at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from espnetv2.data.boxes import BoxedSample
from espnetv2.errors import UserError
from espnetv2.tasks.box_ap import (
    VOC_PIXEL,
    FoundBoxes,
    TrueBoxes,
    coco_average_precision,
    voc_average_precision,
)
from espnetv2.tasks.detection_metric import mean
from espnetv2.tasks.protocols import DetectionProtocol
from espnetv2.tasks.results import Detections
from espnetv2.tasks.scores import ClassScore, Scores

_Columns = tuple[np.ndarray, np.ndarray, np.ndarray]


class DetectionMeter:
    """Boxes found and true, picture by picture; scores are computed from all of them."""

    def __init__(self, dataset: Any, protocols: dict[str, DetectionProtocol]) -> None:
        self.classes: tuple[str, ...] = dataset.classes
        self.protocols = protocols
        self.found: list[_Columns] = []
        self.truth: list[_Columns] = []

    def update(self, answers: Sequence[Detections], samples: Sequence[BoxedSample]) -> None:
        """Keep a batch.

        Raises:
            UserError: The network has other classes than the data set.
        """
        for answer, sample in zip(answers, samples, strict=True):
            if len(answer.classes) != len(self.classes):
                raise UserError(
                    f"the network finds {len(answer.classes)} classes but the data set has "
                    f"{len(self.classes)}; use weights that were trained on it"
                )
            self.found.append((answer.labels, answer.scores, answer.boxes))
            target = sample.target
            ignored = target.difficult | target.crowd
            self.truth.append(
                (target.labels.numpy() - 1, ignored.numpy().astype(bool), target.boxes.numpy())
            )

    def counts(self) -> tuple[list[_Columns], list[_Columns]]:
        """See `Meter`."""
        return self.found, self.truth

    def add(self, counts: tuple[list[_Columns], list[_Columns]]) -> None:
        """See `Meter`."""
        self.found = self.found + counts[0]
        self.truth = self.truth + counts[1]

    def scores(self, *, pictures: int, seconds: float) -> list[Scores]:
        """One result per protocol."""
        found, truth = FoundBoxes(*_joined(self.found)), TrueBoxes(*_joined(self.truth))
        # without a true box the type would be lost
        truth = truth._replace(difficult=truth.difficult.astype(bool))
        counts = np.bincount(truth.labels[~truth.difficult], minlength=len(self.classes))
        results = []
        for name, protocol in self.protocols.items():
            values = _values(protocol, found, truth, classes=len(self.classes))
            per_class = {
                label: ClassScore(
                    {key: 100 * float(value[index]) for key, value in values.items()},
                    int(counts[index]),
                    averaged=bool(counts[index]),
                )
                for index, label in enumerate(self.classes)
            }
            metrics = {key: 100 * mean(value) for key, value in values.items()}
            results.append(Scores(name, metrics, per_class, pictures, seconds))
        return results


def _values(
    protocol: DetectionProtocol, found: FoundBoxes, truth: TrueBoxes, *, classes: int
) -> dict[str, np.ndarray]:
    if protocol.measure == "coco":
        coco = coco_average_precision(found, truth, classes=classes)
        return {"ap": coco.ap, "ap50": coco.ap50, "ap75": coco.ap75}
    eleven = protocol.measure == "voc-2007"
    ap50 = voc_average_precision(
        found, truth, classes=classes, eleven_points=eleven, pixel=VOC_PIXEL
    )
    return {"ap50": ap50}


def _joined(columns: list[_Columns]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Picture numbers beside the labels, values and boxes of all pictures."""
    numbers = [np.full(len(labels), number) for number, (labels, _, _) in enumerate(columns)]
    labels, values, boxes = (np.concatenate(column) for column in zip(*columns, strict=True))
    return np.concatenate(numbers), labels.astype(np.int64), values, boxes
