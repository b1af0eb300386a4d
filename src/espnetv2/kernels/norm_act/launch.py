"""Launches the kernels of `triton.py`; imported where Triton is."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from espnetv2.kernels.layout import dense, memory_format, power, strides
from espnetv2.kernels.norm_act.reference import widened
from espnetv2.kernels.norm_act.triton import (
    forward_kernel,
    grad_kernel,
    join_kernel,
    moments_kernel,
    sums_kernel,
)

VALUES = 2048
"""Of a tile."""

PROGRAMS = 8192
"""Of a launch, at most; a program takes tiles that lie evenly apart."""

SUMMING = 1024
"""The same where programs sum, so that there is little to be joined."""


JOINED = 1024
"""Programs whose moments are joined at a time."""


@dataclass(frozen=True)
class Cut:
    """How a map is shared out.

    Attributes:
        sizes: Channels, pixels of an image, and the ways from image to image, channel to channel,
            pixel to pixel.
        block: Pixels and channels of a tile, each a power of two.
        tiles: Of all images.
        slots: Programs that share the tiles of one block of channels.
    """

    sizes: tuple[int, int, int, int, int]
    block: tuple[int, int]
    tiles: int
    slots: int

    @cached_property
    def grid(self) -> tuple[int]:
        """Programs."""
        return (self.slots * -(-self.sizes[0] // self.block[1]),)

    @cached_property
    def walk(self) -> tuple[int, ...]:
        """What every kernel takes."""
        return (*self.sizes, self.tiles, self.slots)

    @cached_property
    def constants(self) -> dict[str, Any]:
        """What every kernel is compiled for."""
        pixels, channels = self.block
        warps = max(1, min(4, pixels * channels // 128))
        blocks = {"BLOCK_P": pixels, "BLOCK_C": channels}
        return {**blocks, "num_warps": warps, "enable_fp_fusion": True}


def cut(x: Tensor, form: torch.memory_format, programs: int) -> Cut:
    """Share out a dense map (B, C, H, W) of that memory format."""
    return _cut(tuple(x.shape), strides(x, form), form, programs, VALUES)


@cache
def _cut(
    shape: tuple[int, ...],
    steps: tuple[int, int],
    form: torch.memory_format,
    programs: int,
    values: int,
) -> Cut:
    images, channels, height, width = shape
    pixels = height * width
    if form == torch.channels_last:
        images, pixels = 1, images * pixels
        deep = min(power(channels), 64)
        block = min(power(pixels), max(1, values // deep)), deep
    else:
        wide = min(power(pixels), values)
        block = wide, min(power(channels), values // wide)
    tiles, blocks = images * -(-pixels // block[0]), -(-channels // block[1])
    sizes = (channels, pixels, channels * height * width, *steps)
    return Cut(sizes, block, tiles, max(1, min(tiles, programs // blocks)))


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """See `reference.moments`; of a map that is not empty."""
    form = memory_format(x)
    x = dense(x, form)
    shares = cut(x, form, SUMMING)
    parts = torch.empty((2, shares.slots, x.shape[1]), dtype=widened(x.dtype), device=x.device)
    means, squares = parts.unbind()
    counts = torch.empty(shares.slots, dtype=parts.dtype, device=x.device)
    with on(x):
        moments_kernel[shares.grid](
            *(x, means, squares, counts, *shares.walk), ACC=language(x), **shares.constants
        )
    return joined(means, squares, counts)


def joined(means: Tensor, squares: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of all from those of parts.

    Shape: means and sums of squared distances (S, C), counts (S,) -> (C,), (C,)
    """
    slots, channels = means.shape
    mean, var = (torch.empty(channels, dtype=means.dtype, device=means.device) for _ in range(2))
    if not slots:
        return mean.fill_(float("nan")), var.fill_(float("nan"))
    with on(means):
        join_kernel[(-(-channels // 4),)](
            *(means, squares, counts, mean, var, channels, slots),
            BLOCK_S=min(JOINED, power(slots)),
            BLOCK_C=4,
            num_warps=8,
            enable_fp_fusion=True,
        )
    return mean, var


def forward(
    x: Tensor,
    residual: Tensor | None,
    mean: Tensor,
    var: Tensor,
    weight: Tensor,
    bias: Tensor,
    slope: Tensor | None,
    eps: float,
) -> Tensor:
    """See `reference.norm_act`."""
    form = memory_format(x)
    x, shares = dense(x, form), cut(x, form, PROGRAMS)
    beside = x if residual is None else dense(residual, form)
    z = torch.empty_like(x)
    if x.numel():
        with on(x):
            forward_kernel[shares.grid](
                *(x, beside, *vectors(mean, var, weight, bias, slope), z, *shares.walk),
                EPS=eps,
                RESIDUAL=residual is not None,
                ACT=slope is not None,
                ACC=language(x),
                **shares.constants,
            )
    return z


def backward(
    grad: Tensor,
    x: Tensor,
    residual: Tensor | None,
    mean: Tensor,
    var: Tensor,
    weight: Tensor,
    bias: Tensor,
    slope: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """See `reference.backward`; the same bits every time."""
    form = memory_format(x)
    x, grad = dense(x, form), dense(grad, form)
    act, beside = slope is not None, slope is not None and residual is not None
    given = vectors(mean, var, weight, bias, slope)
    shares, few = cut(x, form, PROGRAMS), cut(x, form, SUMMING)
    dx, count = torch.empty_like(x), x.numel() // x.shape[1]
    du = torch.empty_like(x) if beside else None
    partial = torch.empty((few.slots, 3, x.shape[1]), dtype=widened(x.dtype), device=x.device)
    if not count:
        return dx, du, partial.zero_().sum(0)
    other = dense(residual, form) if beside and residual is not None else x
    with on(x):
        sums_kernel[few.grid](
            *(grad, x, other, *given, dx if du is None else du, partial, *few.walk),
            EPS=eps,
            RESIDUAL=beside,
            ACT=act,
            ACC=language(x),
            **few.constants,
        )
        sums = partial.sum(0)
        grad_kernel[shares.grid](
            *(grad if du is None else du, x, *given, sums, dx, count, *shares.walk),
            EPS=eps,
            ACT=act and not beside,
            ACC=language(x),
            **shares.constants,
        )
    return dx, du, sums


def vectors(*given: Tensor | None) -> Sequence[Tensor]:
    """Vectors (C,) without gaps; the first one stands for what is not given."""
    assert given[0] is not None
    return [(given[0] if one is None else one).contiguous() for one in given]


def language(x: Tensor) -> Any:
    """What sums are made in."""
    return tl.float64 if x.dtype == torch.float64 else tl.float32


def on(x: Tensor) -> AbstractContextManager[Any]:
    """The device of a map as the one that kernels are launched on."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()
