"""What is kept of multi-label predictions while pictures go by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from espnetv2.errors import UserError
from espnetv2.tasks import multilabel
from espnetv2.tasks.protocols import MultiLabelProtocol
from espnetv2.tasks.scores import ClassScore, Scores


class MultiLabelMeter:
    """Logits and truth of every picture."""

    def __init__(self, dataset: Any, protocols: dict[str, MultiLabelProtocol]) -> None:
        self.classes: tuple[str, ...] = dataset.classes
        self.protocols = protocols
        self.logits: list[Tensor] = []
        self.targets: list[Tensor] = []

    def update(self, answers: Any, samples: Sequence[Any]) -> None:
        """Keep a batch.

        Shape: logits (B, classes); targets (classes,) of 0 and 1

        Raises:
            UserError: The network has another number of classes than the data set.
        """
        logits = torch.as_tensor(answers)
        if logits.ndim != 2 or logits.shape[1] != len(self.classes):
            raise UserError(
                f"the network gives outputs of shape {tuple(logits.shape)}, not scores of the "
                f"data set's {len(self.classes)} classes; use a classifier that was trained on it"
            )
        self.logits.append(logits.float().cpu())
        self.targets.append(torch.stack([torch.as_tensor(one.target) for one in samples]).float())

    def counts(self) -> tuple[list[Tensor], list[Tensor]]:
        """See `Meter`."""
        return self.logits, self.targets

    def add(self, counts: tuple[list[Tensor], list[Tensor]]) -> None:
        """See `Meter`."""
        self.logits = self.logits + counts[0]
        self.targets = self.targets + counts[1]

    def scores(self, *, pictures: int, seconds: float) -> list[Scores]:
        """One result per protocol."""
        found = multilabel.judge(torch.cat(self.logits), torch.cat(self.targets))
        metrics = {
            "f1_class": 100 * found.class_f1,
            "f1_overall": 100 * found.overall_f1,
            "map": 100 * found.mean_average_precision,
        }
        per_class = {
            label: ClassScore(
                {
                    "f1": 100 * float(found.f1[index]),
                    "ap": 100 * float(found.average_precision[index]),
                },
                int(found.positives[index]),
            )
            for index, label in enumerate(self.classes)
        }
        return [Scores(name, metrics, per_class, pictures, seconds) for name in self.protocols]
