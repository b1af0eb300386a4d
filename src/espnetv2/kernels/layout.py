"""Memory formats of maps, and how maps are cut into tiles for programs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor


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
    return min(power(channels), 32 if form == torch.channels_last else 4)


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
class Cut:
    """How the pixels and channels of maps are shared out among programs.

    Attributes:
        strip: Columns of a strip.
        lanes: Strips of a tile, a power of two.
        block: Channels of a tile, a power of two.
        strips: Of all images.
        whole: Whether an image ends with a strip.
        bands: Bands of an image.
        rows: Of a band, which a program walks down.
        blocks: Blocks of channels.
        warps: Of a program.
    """

    strip: int
    lanes: int
    block: int
    strips: int
    whole: bool
    bands: int
    rows: int
    blocks: int
    warps: int

    @property
    def slots(self) -> int:
        """Programs that share one channel."""
        return -(-self.strips // self.lanes) * self.bands


@cache
def cut(
    shape: tuple[int, int, int, int],
    *,
    strip: int,
    block: int,
    each: int,
    programs: int,
    least_rows: int = 1,
) -> Cut:
    """Share out a map (B, C, H, W).

    Args:
        strip: Columns of a strip.
        block: Channels of a tile.
        each: Channels and strips of a tile that a thread has, of four warps at most.
        programs: As many keep the device busy.
        least_rows: Of a band, unless the map ends before.
    """
    batch, channels, height, width = shape
    strips = batch * -(-width // strip)
    lanes = max(1, min(128 * each // block, power(strips)))
    blocks = -(-channels // block)
    few = -(-programs // max(1, blocks * -(-strips // lanes)))  # bands that fill the device
    rows = -(-height // max(1, min(few, height // least_rows)))
    return Cut(
        strip=strip,
        lanes=lanes,
        block=block,
        strips=strips,
        whole=width % strip == 0,
        bands=-(-height // max(1, rows)),
        rows=rows,
        blocks=blocks,
        warps=max(1, lanes * block // (32 * each)),
    )


def power(count: int) -> int:
    """The power of two that is not less."""
    return 1 << max(0, count - 1).bit_length()
