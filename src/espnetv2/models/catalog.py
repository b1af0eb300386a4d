"""Every network by name. Importing this does not import torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import nn

Task = Literal["classification", "segmentation", "detection", "language"]


@dataclass(frozen=True)
class Entry:
    """One row of the catalog.

    Attributes:
        build: Makes the network; takes `num_classes` and `in_channels` (language models take
            `vocabulary`), keyword-only, and the network's own options.
        num_classes: What `build` uses when not told otherwise.
        input_size: (height, width) at which multiply-adds are counted; for language models
            (1, 1), one token.
        paper: Key in docs/papers.bib.
        extra: The extra that must be installed, if any.
        baseline: Whether it is here for comparison only.
    """

    task: Task
    build: Callable[..., nn.Module]
    num_classes: int
    input_size: tuple[int, int]
    paper: str
    extra: str | None = None
    baseline: bool = False
