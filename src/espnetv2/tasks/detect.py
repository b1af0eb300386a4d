"""Detection: from the network's raw outputs to boxes in a picture, and the loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from espnetv2.errors import UserError
from espnetv2.models.espnetv2_ssd import RawDetections
from espnetv2.tasks.multibox import MultiBoxLoss, decode_offsets, multibox_loss, to_corners
from espnetv2.tasks.priors import priors
from espnetv2.tasks.results import Detections

__all__ = ["MultiBoxLoss", "decode", "multibox_loss", "priors", "suppress"]


def decode(
    raw: RawDetections,
    priors: Tensor,
    sizes: Sequence[tuple[int, int]],
    classes: tuple[str, ...],
    *,
    score_threshold: float = 0.01,
    iou_threshold: float = 0.45,
    per_class: int = 200,
    max_detections: int | None = 200,
    clip: bool = True,
) -> list[Detections]:
    """The boxes of a batch, best first.

    Each class keeps its boxes above a share of the softmax and drops those that overlap a
    better one; the best 200 of a picture remain, as in the paper. The official code neither
    limits the boxes of a picture nor clips them: `max_detections=None, clip=False` (D42).

    Paper: ssd sec. 3.7 (inference time).
    Shape: raw scores (B, N, 1 + classes) and offsets (B, N, 4), priors (N, 4) -> B results

    Args:
        raw: The network's outputs, background first among the scores.
        priors: From `priors`, for the size of the network's input.
        sizes: (height, width) in pixels of the pictures; boxes come out on that scale.
        classes: Names without background.
        score_threshold: Share of the softmax that a box must exceed.
        iou_threshold: Overlap above which the lesser of two boxes of a class is dropped.
        per_class: Boxes kept of one class.
        max_detections: Boxes kept of one picture; None keeps all.
        clip: Whether to cut boxes at the border of the picture.

    Raises:
        UserError: If the counts of classes, priors or pictures do not fit the outputs.
    """
    _check(raw, priors, sizes, classes)
    shares = raw.scores.float().softmax(dim=-1)  # (B, N, 1 + classes)
    boxes = to_corners(decode_offsets(raw.offsets.float(), priors.to(raw.offsets.device)))
    results = []
    for image_boxes, image_shares, (height, width) in zip(boxes, shares, sizes, strict=True):
        kept, labels, scores = suppress(
            image_boxes,
            image_shares,
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            per_class=per_class,
        )
        if clip:
            kept = kept.clamp(0, 1)  # D42
        kept = kept * kept.new_tensor([width, height, width, height])
        best = slice(max_detections)  # D42
        results.append(
            Detections(
                boxes=kept[best].cpu().numpy(),
                labels=labels[best].cpu().numpy(),
                scores=scores[best].cpu().numpy(),
                classes=classes,
            )
        )
    return results


def suppress(
    boxes: Tensor,
    shares: Tensor,
    *,
    score_threshold: float,
    iou_threshold: float,
    per_class: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Non-maximum suppression of one image, class by class; boxes best first.

    Shape: (N, 4) corners, (N, 1 + classes) -> boxes (n, 4), labels (n,) from 0, scores (n,)
    """
    rows, labels = [], []
    for label, share in enumerate(shares.unbind(dim=-1)[1:]):
        order = share.argsort(descending=True, stable=True)
        order = order[: int((share > score_threshold).sum())]
        kept = _best_apart(boxes, share, order, iou_threshold=iou_threshold, limit=per_class)
        rows.append(kept)
        labels.append(torch.full_like(kept, label))
    row, label_of = torch.cat(rows), torch.cat(labels)
    scores = shares[row, label_of + 1]
    best = scores.argsort(descending=True, stable=True)
    return boxes[row[best]], label_of[best], scores[best]


def _best_apart(
    boxes: Tensor, scores: Tensor, order: Tensor, *, iou_threshold: float, limit: int
) -> Tensor:
    """The first `limit` survivors of suppression among `order` (indices, best first).

    Whether a box survives depends on better ones only, so looking at the best few first gives
    the same answer as looking at all, and an untrained network does not take seconds.
    """
    from torchvision.ops import nms  # takes seconds to import, and only detectors need it

    count = 4 * limit
    while True:
        chosen = order[:count]
        kept = chosen[nms(boxes[chosen], scores[chosen], iou_threshold)]
        if len(kept) >= limit or count >= len(order):
            return kept[:limit]
        count *= 4


def _check(
    raw: RawDetections,
    priors: Tensor,
    sizes: Sequence[tuple[int, int]],
    classes: tuple[str, ...],
) -> None:
    batch, count, outputs = raw.scores.shape
    if outputs != len(classes) + 1:
        raise UserError(
            f"the network scores {outputs} classes with background, but {len(classes)} names "
            f"were given; give {outputs - 1} without background"
        )
    if count != len(priors):
        raise UserError(
            f"the network has {count} outputs but there are {len(priors)} priors; "
            "make priors for the size of the network's input"
        )
    if batch != len(sizes):
        raise UserError(f"the batch has {batch} pictures but {len(sizes)} sizes were given")
