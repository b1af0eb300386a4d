"""Classification: logits to the best few classes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from espnetv2.errors import UserError
from espnetv2.tasks.results import Classification


def decode(logits: Tensor, classes: Sequence[str], *, top: int = 5) -> list[Classification]:
    """The `top` most probable classes of each picture, best first, by softmax.

    Shape: (B, classes) -> B results

    Raises:
        UserError: There are not as many names as logits.
    """
    if logits.shape[1] != len(classes):
        raise UserError(
            f"the network has {logits.shape[1]} classes but {len(classes)} names were given; "
            "pass one name per class"
        )
    if top < 1:
        raise UserError(f"top={top} asks for no class; use 1 or more")
    scores, order = logits.float().softmax(1).topk(min(top, len(classes)), dim=1)  # (B, top)
    return [
        Classification(tuple(classes[index] for index in row), tuple(values))
        for row, values in zip(order.tolist(), scores.tolist(), strict=True)
    ]
