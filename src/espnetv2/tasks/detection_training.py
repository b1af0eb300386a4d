"""Training a detector: multi-box loss, and average precision of the boxes it decodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from espnetv2.data.boxes import Boxes
from espnetv2.models.espnetv2_ssd import RawDetections
from espnetv2.tasks.detect import decode
from espnetv2.tasks.detection_metric import DetectionAveragePrecision
from espnetv2.tasks.multibox import MATCH_THRESHOLD, NEGATIVES_PER_POSITIVE, multibox_loss
from espnetv2.tasks.priors import priors_of

Target = Boxes | tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor]
"""Boxes as relative corners, labels from 1, and for validation which of them are difficult."""


class Answer(NamedTuple):
    """A detector's outputs with the priors that they refer to.

    Attributes:
        raw: Of the network.
        priors: (N, 4), of the input's size.
        size: (height, width) of the input.
    """

    raw: RawDetections
    priors: Tensor
    size: tuple[int, int]


def look(network: nn.Module, images: Tensor) -> Answer:
    """The network's outputs with its priors.

    Shape: images (B, 3, H, W)
    """
    size = (images.shape[-2], images.shape[-1])
    return Answer(network(images), priors_of(network, size, device=images.device), size)


class DetectionTraining:
    """Boxes and their classes: multi-box loss, VOC's average precision.

    Boxes are judged in pixels of the picture (of the input, where the target does not tell the
    picture's size), decoded as in the official evaluation: 200 of a class, without a limit for a
    picture (D42). The scores are those of `espnetv2 eval`.

    Paper: ssd sec. 2.2; espnetv2 (CVPR version).

    Args:
        classes: Names without background.
        match_threshold: IoU from which a prior is trained on a box.
        negatives: Hard negatives per match.
        coco: Whether to validate by COCO's measure too; by default where the extra `detection`
            is installed.
    """

    monitor = "ap50"
    mode: Literal["max", "min"] = "max"

    def __init__(
        self,
        classes: Sequence[str],
        *,
        match_threshold: float = MATCH_THRESHOLD,
        negatives: int = NEGATIVES_PER_POSITIVE,
        coco: bool | None = None,
    ) -> None:
        self.classes = tuple(classes)
        self.match_threshold = match_threshold
        self.negatives = negatives
        self.coco = coco

    def loss(
        self, network: nn.Module, images: Tensor, targets: Sequence[Target]
    ) -> tuple[Tensor, Answer]:
        """See the protocol; difficult boxes are left out.

        Shape: images (B, 3, H, W), B targets
        """
        answer = look(network, images)
        loss = multibox_loss(
            answer.raw,
            [_trained(target) for target in targets],
            answer.priors,
            threshold=self.match_threshold,
            negatives=self.negatives,
        )
        return loss.total, answer

    def metrics(self) -> DetectionAveragePrecision:
        """See the protocol."""
        return DetectionAveragePrecision(len(self.classes), coco=self.coco)

    def update(
        self, metrics: DetectionAveragePrecision, outputs: Answer, targets: Sequence[Target]
    ) -> None:
        """See the protocol."""
        raw = RawDetections(*(output.detach() for output in outputs.raw))
        sizes = [one.size if isinstance(one, Boxes) else outputs.size for one in targets]
        found = decode(raw, outputs.priors, sizes, self.classes, max_detections=None, clip=False)
        truths = []
        for (boxes, labels, difficult), (height, width) in zip(
            map(_judged, targets), sizes, strict=True
        ):
            pixels = boxes * boxes.new_tensor([width, height, width, height])
            truths.append((pixels, labels, difficult))
        metrics.update(found, truths)

    def scores(self, metrics: DetectionAveragePrecision) -> dict[str, float]:
        """See the protocol; the names are those of `DetectionAveragePrecision.compute`."""
        return {name: 100 * float(value) for name, value in metrics.compute().items()}


def _judged(target: Target) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, labels from 0, and which need not be found."""
    if isinstance(target, Boxes):
        return target.boxes, target.labels - 1, target.difficult | target.crowd
    boxes, labels, *rest = target
    return boxes, labels - 1, rest[0].bool() if rest else torch.zeros_like(labels).bool()


def _trained(target: Target) -> tuple[Any, Any]:
    boxes, labels, difficult = _judged(target)
    return boxes[~difficult], labels[~difficult] + 1
