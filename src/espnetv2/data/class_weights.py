"""Class weights from how often classes occur."""

from __future__ import annotations

import torch
from torch import Tensor


def class_weights(counts: Tensor) -> Tensor:
    """Rare classes weigh more: 1 / ln(1.10 + share), between 1.35 and 10.5.

    Shares are of all labelled pixels (boxes, pictures); a class that never occurs weighs 0, since
    a loss cannot use what is no target.

    Paper: espnet sec. 4 (inverse class probability weighting).
    Shape: counts (C,) -> float32 (C,)

    >>> [round(weight, 2) for weight in class_weights(torch.tensor([90, 10, 0])).tolist()]
    [1.44, 5.48, 0.0]
    """
    total = counts.sum()
    if total == 0:
        return torch.ones(len(counts))
    # D79: counted over the whole split, where the official histogram moves its bins
    weights = 1 / torch.log(1.10 + counts.double() / total)
    return torch.where(counts > 0, weights, 0.0).float()
