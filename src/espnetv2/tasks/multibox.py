"""Matching priors with ground truth, the coding of boxes, and the loss of a detector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from espnetv2.models.espnetv2_ssd import RawDetections

CENTRE_VARIANCE = 0.1
SIZE_VARIANCE = 0.2
MATCH_THRESHOLD = 0.45  # D19
NEGATIVES_PER_POSITIVE = 3


class MultiBoxLoss(NamedTuple):
    """The two terms of a detector's loss, scalars of equal weight."""

    regression: Tensor
    classification: Tensor

    @property
    def total(self) -> Tensor:
        """What training minimises."""
        return self.regression + self.classification


def multibox_loss(
    raw: RawDetections,
    targets: Sequence[tuple[Tensor, Tensor]],
    priors: Tensor,
    *,
    threshold: float = MATCH_THRESHOLD,
    negatives: int = NEGATIVES_PER_POSITIVE,
) -> MultiBoxLoss:
    """Smooth L1 on matched priors and cross-entropy on matched and hard priors.

    Background is nearly everything, so of the unmatched priors of an image only the worst
    explained count, at most `negatives` for each match. Both sums are divided by the matches of
    the whole batch, or by one when there are none (D9).

    Paper: ssd sec. 2.2, Eq. 1-3, "Hard negative mining".

    Args:
        raw: The network's outputs.
        targets: Per image, boxes (n, 4) as relative corners x1 y1 x2 y2 and labels (n,), which
            count from 1 because 0 is background; n may be 0.
        priors: (N, 4) relative centre form, from `priors`.
        threshold: IoU from which a prior is matched.
        negatives: Hard negatives per match.
    """
    priors = priors.to(raw.offsets.device)
    matches = [match(boxes, labels, priors, threshold=threshold) for boxes, labels in targets]
    labels = torch.stack([labels for labels, _ in matches])  # (B, N)
    offsets = torch.stack([offsets for _, offsets in matches])  # (B, N, 4)
    positive = labels > 0
    matched = positive.sum().clamp(min=1)  # D9

    log_shares = raw.scores.float().log_softmax(dim=-1)  # (B, N, classes)
    hard = hard_negatives(-log_shares[..., 0].detach(), positive, ratio=negatives)
    surprise = -log_shares.gather(-1, labels[..., None]).squeeze(-1)  # (B, N)
    classification = (surprise * (positive | hard)).sum()
    distance = F.smooth_l1_loss(raw.offsets.float(), offsets, reduction="none").sum(dim=-1)
    return MultiBoxLoss((distance * positive).sum() / matched, classification / matched)


def match(
    boxes: Tensor, labels: Tensor, priors: Tensor, *, threshold: float = MATCH_THRESHOLD
) -> tuple[Tensor, Tensor]:
    """Give each prior the box it should predict, or background.

    A prior takes the box it overlaps most if their IoU reaches the threshold (D19). Before
    that every box claims the prior that overlaps it most, so that none goes without; where two
    claim one prior, the later box has it.

    Paper: ssd sec. 2.2, "Matching strategy".
    Shape: boxes (n, 4) relative corners, labels (n,) from 1, priors (N, 4) relative centre form
        -> labels (N,) with 0 for background, offsets (N, 4)
    """
    boxes, labels = boxes.to(priors), labels.to(priors.device, torch.int64)
    if len(boxes) == 0:
        return labels.new_zeros(len(priors)), torch.zeros_like(priors)
    overlaps = iou(boxes, to_corners(priors))  # (n, N)
    best, owner = overlaps.max(dim=0)  # (N,)
    claimed = torch.full_like(owner, -1).scatter_reduce(
        0, overlaps.argmax(dim=1), torch.arange(len(boxes), device=owner.device), reduce="amax"
    )
    owner = torch.where(claimed >= 0, claimed, owner)
    taken = (claimed >= 0) | (best >= threshold)
    return labels[owner] * taken, encode(to_centres(boxes[owner]), priors)


def hard_negatives(background_loss: Tensor, positive: Tensor, *, ratio: int) -> Tensor:
    """The unmatched priors of each image that look least like background.

    Shape: (B, N), bool (B, N) -> bool (B, N), at most ratio x positives per image
    """
    ranked = background_loss.masked_fill(positive, -torch.inf).argsort(dim=1, descending=True)
    rank = ranked.argsort(dim=1)
    return (rank < ratio * positive.sum(dim=1, keepdim=True)) & ~positive


def iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of every pair; a box without area has none.

    Shape: (n, 4), (m, 4) corners -> (n, m)
    """
    low = torch.maximum(boxes[:, None, :2], others[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(dim=-1)
    areas, other_areas = ((b[:, 2:] - b[:, :2]).prod(dim=-1) for b in (boxes, others))
    return shared / (areas[:, None] + other_areas[None] - shared + 1e-5)


def encode(boxes: Tensor, priors: Tensor) -> Tensor:
    """Express boxes as offsets from priors: what the network is to predict.

    Paper: ssd Eq. 2, with variances 0.1 and 0.2 as in the EdgeNets code.
    Shape: (..., 4), (..., 4) both centre form -> (..., 4)
    """
    shift = (boxes[..., :2] - priors[..., :2]) / priors[..., 2:] / CENTRE_VARIANCE
    ratio = (boxes[..., 2:] / priors[..., 2:]).clamp(min=1e-6)  # D41
    return torch.cat([shift, ratio.log() / SIZE_VARIANCE], dim=-1)


def decode_offsets(offsets: Tensor, priors: Tensor) -> Tensor:
    """The inverse of `encode`.

    Shape: (..., 4) offsets, (..., 4) centre form -> (..., 4) centre form
    """
    centre = offsets[..., :2] * CENTRE_VARIANCE * priors[..., 2:] + priors[..., :2]
    size = (offsets[..., 2:] * SIZE_VARIANCE).exp() * priors[..., 2:]
    return torch.cat([centre, size], dim=-1)


def to_corners(boxes: Tensor) -> Tensor:
    """Centre x, centre y, width, height -> x1, y1, x2, y2."""
    half = boxes[..., 2:] / 2
    return torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], dim=-1)


def to_centres(boxes: Tensor) -> Tensor:
    """x1, y1, x2, y2 -> centre x, centre y, width, height."""
    return torch.cat(
        [(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], dim=-1
    )
