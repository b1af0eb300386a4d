"""Several classes in one picture: loss, decoding, F1 scores and average precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.functional.classification import multilabel_average_precision

from espnetv2.errors import UserError
from espnetv2.tasks.results import Classification

THRESHOLD = 0.5
"""Probability above which a class is named: there is no limit to how many are."""


def decode(
    logits: Tensor, classes: Sequence[str], *, threshold: float = THRESHOLD
) -> list[Classification]:
    """The classes of each picture that are more probable than `threshold`, best first.

    Shape: (B, classes) -> B results, which may name nothing

    Raises:
        UserError: There are not as many names as logits.
    """
    if logits.shape[1] != len(classes):
        raise UserError(
            f"the network has {logits.shape[1]} classes but {len(classes)} names were given; "
            "pass one name per class"
        )
    scores, order = logits.float().sigmoid().sort(dim=1, descending=True, stable=True)
    results = []
    for row, values in zip(order.tolist(), scores.tolist(), strict=True):
        count = sum(value > threshold for value in values)
        names = tuple(classes[index] for index in row[:count])
        results.append(Classification(names, tuple(values[:count])))
    return results


@dataclass(frozen=True)
class MultiLabelScores:
    """How well classes were told on a whole split, 0 to 1.

    Attributes:
        f1: Per class, float64 (classes,); 0 for one that was never rightly named.
        average_precision: Per class, float64 (classes,); nan for one that does not occur.
        positives: Pictures that show the class, int64 (classes,).
        overall_f1: From the summed counts of all classes.
    """

    f1: Tensor
    average_precision: Tensor
    positives: Tensor
    overall_f1: float

    @property
    def class_f1(self) -> float:
        """The mean of the classes' F1, not the F1 of mean precision and recall."""
        return float(self.f1.mean())

    @property
    def mean_average_precision(self) -> float:
        """Over the classes that occur; nan if none does."""
        return float(self.average_precision.nanmean())


def judge(logits: Tensor, targets: Tensor) -> MultiLabelScores:
    """Compare predictions with truth; a class is named where its logit is above 0.

    Shape: (N, classes), (N, classes) of 0 and 1
    """
    logits, targets = logits.cpu(), targets.cpu()
    said, true = logits > 0, targets > 0.5
    hits, named, positives = ((part).sum(0).double() for part in (said & true, said, true))
    return MultiLabelScores(
        f1=_f1(hits, named, positives),
        average_precision=_average_precision(logits, true),
        positives=true.sum(0),
        overall_f1=float(_f1(hits.sum(), named.sum(), positives.sum())),
    )


class MultiLabelMetric(Metric):
    """F1 and average precision of a whole split, gathered over processes."""

    full_state_update = False
    higher_is_better = True

    logits: list[Tensor] | Tensor
    targets: list[Tensor] | Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        # flat, so that a process without pictures gathers what the others do
        self.add_state("logits", default=[], dist_reduce_fx="cat")
        self.add_state("targets", default=[], dist_reduce_fx="cat")

    def update(self, logits: Tensor, targets: Tensor) -> None:
        """Count a batch. Shape: (B, classes), (B, classes) of 0 and 1."""
        for state, values in ((self.logits, logits), (self.targets, targets)):
            assert isinstance(state, list)
            state.append(values.detach().to(self.dtype).flatten())

    def compute(self) -> dict[str, Tensor]:
        """Returns "f1_overall", "f1_class" and "map", 0 to 1."""
        logits, targets = (
            (torch.cat(state) if state else torch.zeros(0)) if isinstance(state, list) else state
            for state in (self.logits, self.targets)
        )
        shape = (-1, self.num_classes)
        scores = judge(logits.reshape(shape), targets.reshape(shape))
        values = {
            "f1_overall": scores.overall_f1,
            "f1_class": scores.class_f1,
            "map": scores.mean_average_precision,
        }
        return {name: torch.tensor(value) for name, value in values.items()}


class MultiLabelTraining:
    """Classes that do not exclude each other: binary cross-entropy, F1.

    Args:
        num_classes: Of the network.
        factor: Of the mean loss in training; the number of classes by default, as in the
            EdgeNets code, which makes it the sum over classes.

    Paper: espnetv2 sec. 4.1 (multi-object classification).
    """

    monitor = "f1_overall"
    mode: Literal["max", "min"] = "max"

    def __init__(self, num_classes: int, *, factor: float | None = None) -> None:
        self.num_classes = num_classes
        self.factor = float(num_classes if factor is None else factor)

    def loss(self, network: nn.Module, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """See the protocol. Shape: targets (B, classes) float of 0 and 1."""
        logits = network(images)
        loss = F.binary_cross_entropy_with_logits(logits, targets.to(logits))
        return loss * (self.factor if network.training else 1.0), logits

    def metrics(self) -> MultiLabelMetric:
        """See the protocol."""
        return MultiLabelMetric(self.num_classes)

    def update(self, metrics: MultiLabelMetric, outputs: Tensor, targets: Tensor) -> None:
        """See the protocol."""
        metrics.update(outputs, targets)

    def scores(self, metrics: MultiLabelMetric) -> dict[str, float]:
        """See the protocol; the names are those of `MultiLabelMetric.compute`."""
        return {name: 100 * float(value) for name, value in metrics.compute().items()}


def _f1(hits: Tensor, named: Tensor, positives: Tensor) -> Tensor:
    """2 hits / (named + positives), and 0 where nothing was named nor shown."""
    return 2 * hits / (named + positives).clamp(min=1)


def _average_precision(logits: Tensor, true: Tensor) -> Tensor:
    """Per class, float64, nan without a positive."""
    missing = ~true.any(0) if len(true) else torch.ones(true.shape[1], dtype=torch.bool)
    found = torch.full(missing.shape, torch.nan, dtype=torch.float64, device=logits.device)
    if bool(missing.all()):
        return found
    # squashed in double precision: in single one, large logits would tie
    values = multilabel_average_precision(
        logits[:, ~missing].double().sigmoid(),
        true[:, ~missing].long(),
        num_labels=int((~missing).sum()),
        average="none",
        validate_args=False,
    )
    found[~missing] = values.double()
    return found
