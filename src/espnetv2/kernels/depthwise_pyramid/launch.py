"""Launches the kernels of `triton.py`; imported where Triton is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from espnetv2.kernels.depthwise_pyramid.triton import (
    forward_kernel,
    grad_weight_kernel,
    grad_x_kernel,
)
from espnetv2.kernels.layout import (
    Tiles,
    block_of,
    dense,
    memory_format,
    pack,
    strides,
    tiles,
)
from espnetv2.kernels.norm_act.launch import joined, language, on

LARGE_IMAGE = 2**30
"""Values of a map of one picture that want offsets of 64 bits."""

SLOTS = 512
"""Programs that sum for one channel, about."""


def forward(x: Tensor, weight: Tensor, dilations: Sequence[int], stride: int) -> Tensor:
    """See `reference.depthwise_pyramid`."""
    y, _ = _forward(x, _packed(weight, x), dilations, stride)
    return y


def forward_act(
    x: Tensor, packed: Tensor, factors: Tensor, dilations: Sequence[int], stride: int
) -> Tensor:
    """`reference.scale_shift_act` of it."""
    y, _ = _forward(x, packed, dilations, stride, factors=factors.contiguous())
    return y


def forward_moments(
    x: Tensor, weight: Tensor, dilations: Sequence[int], stride: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The same, and `reference.moments` of it."""
    y, parts = _forward(x, _packed(weight, x), dilations, stride, moments=True)
    assert parts is not None
    return y, *joined(*parts)


def _forward(
    x: Tensor,
    packed: Tensor,
    dilations: Sequence[int],
    stride: int,
    *,
    factors: Tensor | None = None,
    moments: bool = False,
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor] | None]:
    form = memory_format(x)
    x = dense(x, form)
    batch, channels, height, width = x.shape
    branches, size = len(dilations), (-(-height // stride), -(-width // stride))
    y = torch.empty(
        (batch, branches * channels, *size), dtype=x.dtype, device=x.device, memory_format=form
    )
    block = packed.shape[-1]
    values, slots = (1024, SLOTS) if moments else (2048, None)
    cut = tiles(batch, channels, size, block=block, values=values, slots=slots)
    wide = torch.promote_types(x.dtype, torch.float32)
    parts = None
    if moments:
        shape = (cut.slots, branches * channels)
        parts = (
            torch.empty(shape, dtype=wide, device=x.device),
            torch.empty(shape, dtype=wide, device=x.device),
            torch.empty(cut.slots, dtype=wide, device=x.device),
        )
    if y.numel():
        with on(x):
            forward_kernel[(cut.slots * cut.blocks,)](
                x,
                packed,
                x if factors is None else factors,
                y,
                *(parts or (x, x, x)),
                *_sizes(x, size),
                *strides(x, form),
                *strides(y, form),
                *_walk(cut),
                K=branches,
                DILATIONS=tuple(dilations),
                STRIDE=stride,
                ACT=factors is not None,
                MOMENTS=moments,
                ACC=language(x),
                INDEX=_index(x, y),
                **_block(cut),
            )
    return y, parts


def grad_x(
    grad: Tensor, weight: Tensor, size: tuple[int, int], dilations: Sequence[int], stride: int
) -> Tensor:
    """Gradient of the input, in the gradient's memory format.

    Shape: grad (B, K C, H', W'), weight (K, C, 3, 3) -> (B, C, *size)
    """
    form = memory_format(grad)
    grad = dense(grad, form)
    batch, channels = len(grad), weight.shape[1]
    dx = torch.empty(
        (batch, channels, *size), dtype=grad.dtype, device=grad.device, memory_format=form
    )
    cut = tiles(
        batch,
        channels,
        size,
        block=block_of(channels, form),
        values=1024,
        tall=False,
        least_rows=4 * max(dilations),
    )
    block = _block(cut)
    del block["BLOCK_H"]
    if dx.numel():
        with on(grad):
            grad_x_kernel[(cut.slots * cut.blocks,)](
                grad,
                pack(weight, cut.block[2]),
                dx,
                *_sizes(dx, (grad.shape[2], grad.shape[3])),
                *strides(dx, form),
                *strides(grad, form),
                *_walk(cut),
                K=len(dilations),
                DILATIONS=tuple(dilations),
                FIRST=nearest(dilations),
                STRIDE=stride,
                ACC=language(grad),
                INDEX=_index(dx, grad),
                **block,
            )
    return dx


def grad_weight(grad: Tensor, x: Tensor, dilations: Sequence[int], stride: int) -> Tensor:
    """Gradient of the weights, in float32 or wider; the same bits every time.

    Shape: grad (B, K C, H', W'), x (B, C, H, W) -> (K, C, 3, 3)
    """
    form = memory_format(x)
    x, grad = dense(x, form), dense(grad, form)
    batch, channels = x.shape[:2]
    branches, size = len(dilations), (grad.shape[2], grad.shape[3])
    wide = torch.promote_types(x.dtype, torch.float32)
    block = block_of(channels, form)
    cut = tiles(batch, channels, size, block=block, values=1024, slots=SLOTS)
    partial = torch.empty((cut.slots, branches, 9, channels), dtype=wide, device=x.device)
    if not grad.numel():
        partial.zero_()
    else:
        with on(x):
            grad_weight_kernel[(cut.slots * cut.blocks, branches)](
                grad,
                x,
                partial,
                *_sizes(x, size),
                *strides(x, form),
                *strides(grad, form),
                *_walk(cut),
                K=branches,
                DILATIONS=tuple(dilations),
                STRIDE=stride,
                ACC=language(x),
                INDEX=_index(x, grad),
                **_block(cut),
            )
    found = partial.sum(0).transpose(1, 2).reshape(branches, channels, 3, 3)
    return found.contiguous()


def nearest(dilations: Sequence[int]) -> tuple[int, ...]:
    """The nearest branch with taps s columns away, for s from the largest dilation left to right.

    >>> nearest([1, 1, 3])  # the middle tap is every branch's; 3 stands for none
    (2, 3, 0, 0, 0, 3, 2)
    """
    far = max(dilations)
    first = [
        dilations.index(abs(s)) if abs(s) in dilations else len(dilations)
        for s in range(-far, far + 1)
    ]
    first[far] = 0
    return tuple(first)


def _packed(weight: Tensor, x: Tensor) -> Tensor:
    return pack(weight, block_of(x.shape[1], memory_format(x)))


def _sizes(x: Tensor, size: tuple[int, int]) -> tuple[int, ...]:
    return (*x.shape, *size)


def _walk(cut: Tiles) -> tuple[int, int, int, int]:
    return cut.rows, cut.images, cut.bands, cut.columns


def _block(cut: Tiles) -> dict[str, Any]:
    high, wide, deep = cut.block
    warps = max(1, min(4, high * wide * deep // 128))
    return {
        "BLOCK_H": high,
        "BLOCK_W": wide,
        "BLOCK_C": deep,
        "num_warps": warps,
        "enable_fp_fusion": True,
    }


def _index(*maps: Tensor) -> Any:
    """Of offsets within an image; taps may lie a little beside it."""
    most = max(one[0].numel() for one in maps)
    return tl.int64 if most >= LARGE_IMAGE else tl.int32
