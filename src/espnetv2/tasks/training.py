"""What training needs of a task: its loss, its validation scores, what selects the best weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

IGNORE = 255
"""The target value of unlabelled pixels, in every segmentation set."""


class TrainingTask(Protocol):
    """One task as the training module sees it.

    Attributes:
        monitor: Validation score that selects the best weights.
        mode: Whether more or less of it is better.
    """

    monitor: str
    mode: Literal["max", "min"]

    def loss(self, network: nn.Module, images: Tensor, targets: Any) -> tuple[Tensor, Any]:
        """Loss to minimise, and the network's raw outputs."""
        ...

    def metrics(self) -> Metric | MetricCollection:
        """Fresh validation metrics."""
        ...

    def update(self, metrics: Any, outputs: Any, targets: Any) -> None:
        """Count one validation batch."""
        ...

    def scores(self, metrics: Any) -> dict[str, float]:
        """Validation scores by name, in per cent."""
        ...


class ClassificationTraining:
    """One class a picture: cross-entropy, top-1 and top-5.

    Targets may also be distributions over classes (B, C), as mixing pictures makes them.

    Paper: espnetv2 sec. 4.1.
    """

    monitor = "top1"
    mode: Literal["max", "min"] = "max"

    def __init__(
        self,
        num_classes: int,
        *,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        self.num_classes = num_classes
        self.label_smoothing = label_smoothing
        self.class_weights = _tensor(class_weights)

    def loss(self, network: nn.Module, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """See the protocol. Shape: targets (B,) int64 or (B, C) float."""
        logits = network(images)
        loss = F.cross_entropy(
            logits,
            targets,
            weight=_on(self.class_weights, logits),
            label_smoothing=self.label_smoothing if network.training else 0.0,
        )
        return loss, logits

    def metrics(self) -> MetricCollection:
        """Top-1, and top-5 where there are more than five classes."""
        parts: dict[str, Metric | MetricCollection] = {
            "top1": MulticlassAccuracy(self.num_classes, average="micro"),
        }
        if self.num_classes > 5:
            parts["top5"] = MulticlassAccuracy(self.num_classes, average="micro", top_k=5)
        return MetricCollection(parts)

    def update(self, metrics: MetricCollection, outputs: Tensor, targets: Tensor) -> None:
        """See the protocol."""
        metrics.update(outputs, targets)

    def scores(self, metrics: MetricCollection) -> dict[str, float]:
        """See the protocol."""
        return {name: 100 * float(value) for name, value in metrics.compute().items()}


class SegmentationTraining:
    """A class a pixel: cross-entropy without unlabelled pixels, mIoU over the split.

    Paper: espnetv2 sec. 4.2.

    Args:
        class_weights: A factor per class.
        auxiliary: Weight of the auxiliary logits' loss, for networks that have them.
    """

    monitor = "miou"
    mode: Literal["max", "min"] = "max"

    def __init__(
        self,
        num_classes: int,
        *,
        class_weights: Sequence[float] | None = None,
        auxiliary: float = 0.0,
        label_smoothing: float = 0.0,
    ) -> None:
        self.num_classes = num_classes
        self.class_weights = _tensor(class_weights)
        self.auxiliary = auxiliary
        self.label_smoothing = label_smoothing

    def loss(self, network: nn.Module, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """See the protocol. Shape: targets (B, H, W) int64, 255 for unlabelled."""
        if self.auxiliary and network.training and hasattr(network, "forward_with_auxiliary"):
            from espnetv2.models.espnetv2_seg_arxiv import enlarge_auxiliary

            both: Any = network.forward_with_auxiliary
            logits, auxiliary = both(images)
            size = (targets.shape[-2], targets.shape[-1])
            extra = self._loss(enlarge_auxiliary(auxiliary, size), targets, network.training)
            return self._loss(logits, targets, True) + self.auxiliary * extra, logits
        logits = network(images)
        if logits.shape[-2:] != targets.shape[-2:]:  # ESPNet-C: labels reduced by nearest
            small = F.interpolate(targets[:, None].float(), logits.shape[-2:], mode="nearest")
            targets = small[:, 0].long()
        return self._loss(logits, targets, network.training), logits

    def _loss(self, logits: Tensor, targets: Tensor, training: bool) -> Tensor:
        total = F.cross_entropy(
            logits,
            targets,
            weight=_on(self.class_weights, logits),
            ignore_index=IGNORE,
            label_smoothing=self.label_smoothing if training else 0.0,
            reduction="mean",
        )
        # a batch without a single labelled pixel has no mean
        return total if bool((targets != IGNORE).any()) else logits.sum() * 0.0

    def metrics(self) -> MulticlassConfusionMatrix:
        """The confusion matrix of the whole split."""
        return MulticlassConfusionMatrix(self.num_classes, ignore_index=IGNORE)

    def update(self, metrics: Metric, outputs: Tensor, targets: Tensor) -> None:
        """See the protocol; small outputs are enlarged."""
        if outputs.shape[-2:] != targets.shape[-2:]:
            outputs = F.interpolate(
                outputs, targets.shape[-2:], mode="bilinear", align_corners=True
            )
        metrics.update(outputs.argmax(1), targets)

    def scores(self, metrics: Metric) -> dict[str, float]:
        """Mean IoU over the classes that occur or are predicted, and pixel accuracy."""
        matrix = metrics.compute().double()
        hits = matrix.diagonal()
        union = matrix.sum(0) + matrix.sum(1) - hits
        iou = hits[union > 0] / union[union > 0]
        return {
            "miou": 100 * float(iou.mean()) if len(iou) else 0.0,
            "accuracy": 100 * float(hits.sum() / matrix.sum().clamp(min=1)),
        }


def _tensor(values: Sequence[float] | None) -> Tensor | None:
    return None if values is None else torch.tensor(list(values), dtype=torch.float32)


def _on(values: Tensor | None, like: Tensor) -> Tensor | None:
    return None if values is None else values.to(like)
