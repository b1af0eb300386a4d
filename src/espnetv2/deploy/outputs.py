"""Answers instead of raw outputs, computed inside the exported graph: no shape depends on data."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from espnetv2.errors import UserError
from espnetv2.layers.conv import resize
from espnetv2.models.espnetv2_ssd import RawDetections
from espnetv2.tasks.multibox import decode_offsets, to_corners
from espnetv2.tasks.priors import priors_of

NAMES = {
    "classification": ("logits",),
    "segmentation": ("logits",),
    "detection": ("scores", "offsets"),
}
"""Raw outputs by task."""
DECODED_NAMES = {
    "classification": ("probabilities",),
    "segmentation": ("mask",),
    "detection": ("boxes", "scores", "labels"),
}
"""Decoded outputs by task."""
PER_CLASS = 100
ROUNDS = 16


def with_decoding(
    network: nn.Module,
    *,
    task: str,
    size: tuple[int, int] | None,
    detector: nn.Module | None = None,
    multi_label: bool = False,
) -> nn.Module:
    """The network with its task's decoding behind it.

    | task           | outputs                                                                |
    |----------------|------------------------------------------------------------------------|
    | classification | probabilities (B, classes): softmax, or sigmoid with several labels    |
    | segmentation   | mask (B, H, W) uint8, at the input's size: arg-max                     |
    | detection      | boxes (B, K, 4) corners as shares of the picture, scores (B, K),       |
    |                | labels (B, K) int64 from 0; best first, zeros where there is no more   |

    Args:
        size: (height, width) of the input; a detector's must be known.
        detector: The train form, which knows its priors.
        multi_label: Whether a classifier names every class that a picture shows.

    Raises:
        UserError: The task has no decoding, or a detector's size is free.
    """
    if task == "classification":
        return Probabilities(network, multi_label=multi_label)
    if task == "segmentation":
        return Mask(network)
    if task == "detection" and detector is not None:
        if size is None:
            raise UserError("boxes are decoded for one size; give --size HxW instead of --dynamic")
        return Boxes(network, priors_of(detector, size))
    raise UserError(f"there is no decoding for {task}; leave --output raw")


class Probabilities(nn.Module):
    """Shape: (B, 3, H, W) -> (B, classes), which sum to 1 unless each is for itself."""

    def __init__(self, network: nn.Module, *, multi_label: bool = False) -> None:
        super().__init__()
        self.network, self.multi_label = network, multi_label

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        logits: Tensor = self.network(image)
        return logits.sigmoid() if self.multi_label else logits.softmax(dim=1)


class Mask(nn.Module):
    """Shape: (B, 3, H, W) -> classes (B, H, W), uint8."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        logits: Tensor = self.network(image)
        # ESPNet-C answers at 1/8 (D53); the others at full size, where this does nothing
        return resize(logits, (image.shape[-2], image.shape[-1])).argmax(dim=1).to(torch.uint8)


class Boxes(nn.Module):
    """Decoding, scores and non-maximum suppression in fixed shapes.

    Of each class the best `PER_CLASS` priors take part. What greedy suppression keeps is found by
    repetition: a box stays if no better one that stays overlaps it. Every round is right one link
    further down a chain of overlapping boxes; longer chains than `ROUNDS` do not occur.

    Paper: ssd sec. 3.7; `tasks.detect.decode` without limits on candidates is the reference.
    Shape: (B, 3, H, W) -> boxes (B, K, 4), scores (B, K), labels (B, K)

    Args:
        priors: (N, 4), of the input's size.
    """

    def __init__(
        self,
        network: nn.Module,
        priors: Tensor,
        *,
        score_threshold: float = 0.01,
        iou_threshold: float = 0.45,
        max_detections: int = 200,
    ) -> None:
        super().__init__()
        self.network = network
        self.score_threshold, self.iou_threshold = score_threshold, iou_threshold
        self.max_detections = max_detections
        self.priors = nn.Buffer(priors.clone())

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        raw: RawDetections = self.network(image)
        shares = raw.scores.softmax(dim=-1)[..., 1:].transpose(1, 2)  # (B, classes, N)
        corners = to_corners(decode_offsets(raw.offsets, self.priors))  # (B, N, 4)
        batch, classes, count = shares.shape
        scores, places = shares.topk(min(PER_CLASS, count), dim=-1)  # (B, classes, n)
        number = scores.shape[-1]
        index = places.flatten(1)[..., None].expand(-1, -1, 4)
        boxes = corners.gather(1, index).view(batch, classes, number, 4)
        kept = (scores > self.score_threshold).to(scores.dtype) * self._apart(boxes)
        best = min(self.max_detections, classes * number)
        scores, places = (scores * kept).flatten(1).topk(best, dim=-1)
        chosen = boxes.flatten(1, 2).gather(1, places[..., None].expand(-1, -1, 4))
        real = scores > 0  # rows that fill up are zeros, not whatever came next
        boxes = chosen.clamp(0, 1) * real[..., None].to(chosen.dtype)
        return boxes, scores, places // number * real.to(places.dtype)

    def _apart(self, boxes: Tensor) -> Tensor:
        """1 for what greedy suppression keeps. Shape: (B, classes, n, 4) -> (B, classes, n)."""
        number = boxes.shape[2]
        better = torch.ones(number, number, dtype=boxes.dtype, device=boxes.device).triu(1)
        rivals = (_overlaps(boxes) > self.iou_threshold).to(boxes.dtype) * better
        kept = torch.ones_like(boxes[..., 0])
        for _ in range(min(ROUNDS, number)):
            kept = 1 - (rivals * kept[..., None]).amax(dim=2)
        return kept


def _overlaps(boxes: Tensor) -> Tensor:
    """IoU of every pair. Shape: (..., n, 4) -> (..., n, n)."""
    low = torch.maximum(boxes[..., :, None, :2], boxes[..., None, :, :2])
    high = torch.minimum(boxes[..., :, None, 2:], boxes[..., None, :, 2:])
    common = (high - low).clamp(min=0).prod(dim=-1)
    area = (boxes[..., 2:] - boxes[..., :2]).prod(dim=-1)
    return common / (area[..., :, None] + area[..., None, :] - common)
