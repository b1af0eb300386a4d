"""What a segmenter or a detector expects of the network under it."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Backbone(Protocol):
    """A network that returns the outputs of its stages, finest first.

    `channels[i]` and `strides[i]` describe output i; its size is the input's divided by the
    stride, rounded up.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    def __call__(self, image: Tensor) -> list[Tensor]:
        """Shape: (B, in_channels, H, W) -> [(B, channels[i], H / strides[i], W / strides[i])]."""
        ...
