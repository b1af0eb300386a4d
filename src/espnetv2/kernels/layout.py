"""Memory formats of maps, and how a map is cut into the tiles of programs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

PROGRAMS = 2048
"""As many keep a large GPU busy; with more pixels than that, programs take more of them."""


def memory_format(x: Tensor) -> torch.memory_format:
    """Channels-last where only that makes a map (B, C, H, W) dense, else contiguous."""
    last = torch.channels_last
    if x.is_contiguous(memory_format=last) and not x.is_contiguous():
        return last
    return torch.contiguous_format


def dense(x: Tensor, form: torch.memory_format) -> Tensor:
    """The map itself if it has this memory format, else a copy that has."""
    return x.contiguous(memory_format=form)


def strides(x: Tensor, form: torch.memory_format) -> tuple[int, int]:
    """From channel to channel and from pixel to pixel of a dense map (B, C, H, W)."""
    _, channels, height, width = x.shape
    return (1, channels) if form == torch.channels_last else (height * width, 1)


def block_of(channels: int, form: torch.memory_format) -> int:
    """Channels of a tile: side by side in memory where they are last, else few."""
    return min(_power(channels), 32 if form == torch.channels_last else 4)


def pack(weight: Tensor, block: int) -> Tensor:
    """Weights of 3x3 convolutions, block by block; zeros where the last one has no channels.

    Shape: (K, C, 3, 3) -> (ceil(C / block), K, 9, block)
    """
    taps = weight.flatten(2).movedim(1, 2)  # (K, 9, C)
    lacking = -weight.shape[1] % block
    if lacking:
        taps = F.pad(taps, (0, lacking))
    return taps.view(*taps.shape[:2], -1, block).movedim(2, 0).contiguous()


def unpack(packed: Tensor, channels: int) -> Tensor:
    """What was packed.

    Shape: (blocks, K, 9, block) -> (K, channels, 3, 3)
    """
    taps = packed.movedim(0, 2).flatten(2)[..., :channels]  # (K, 9, C)
    return taps.movedim(2, 1).reshape(len(taps), channels, 3, 3)


@dataclass(frozen=True)
class Tiles:
    """How the pixels and channels of a map are shared out.

    Attributes:
        block: Rows, columns and channels of a tile, each a power of two.
        rows: Of a band, which a program walks down.
        images: Of a group, which a program takes one after the other.
        bands: Bands of an image.
        columns: Tiles side by side.
        groups: Groups of images.
        blocks: Blocks of channels.
    """

    block: tuple[int, int, int]
    rows: int
    images: int
    bands: int
    columns: int
    groups: int
    blocks: int

    @property
    def slots(self) -> int:
        """Programs that share one channel."""
        return self.groups * self.bands * self.columns


def tiles(
    batch: int,
    channels: int,
    size: tuple[int, int],
    *,
    block: int,
    values: int,
    tall: bool = True,
    least_rows: int = 1,
    slots: int | None = None,
) -> Tiles:
    """Cut a map (B, C, *size).

    Args:
        block: Channels of a tile.
        values: Of a tile, about.
        tall: Whether a tile may have several rows.
        least_rows: Of a band, unless the map ends before.
        slots: Programs of one channel, about, so that what they sum is short; None for as many as
            there are.
    """
    height, width = size
    wide = min(_power(width), 32 if block > 4 else 64)
    high = max(1, min(_power(height), values // (wide * block))) if tall else 1
    blocks, columns = -(-channels // block), -(-width // wide)
    bands = min(height // max(high, least_rows), PROGRAMS // (blocks * columns * max(1, batch)))
    bands = max(1, bands)
    rows = math.ceil(height / bands / high) * high
    bands = -(-height // rows)
    images = 1 if slots is None else max(1, batch * bands * columns // slots)
    return Tiles((high, wide, block), rows, images, bands, columns, -(-batch // images), blocks)


def _power(count: int) -> int:
    """The power of two that is not less."""
    return 1 << max(0, count - 1).bit_length()
