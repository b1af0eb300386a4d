"""Launches the kernels of `triton.py`; imported where Triton is."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
import triton.language as tl
from torch import Tensor

from espnetv2.kernels.depthwise_pyramid.triton import (
    forward_kernel,
    grad_weight_kernel,
    grad_x_kernel,
)
from espnetv2.kernels.layout import Tiles, dense, memory_format, strides, tiles

SLOTS = 512
"""Programs that sum for one channel, about."""

Epilogue = tuple[Tensor, Tensor, Tensor, Tensor]
"""Scale, shift, rise and fall, (K C,) each."""


def forward(
    x: Tensor,
    weight: Tensor,
    dilations: Sequence[int],
    stride: int,
    *,
    epilogue: Epilogue | None = None,
) -> Tensor:
    """See `reference.depthwise_pyramid`; with the epilogue `reference.scale_shift_act` of it."""
    y, _ = _forward(x, weight, dilations, stride, epilogue=epilogue)
    return y


def forward_moments(
    x: Tensor, weight: Tensor, dilations: Sequence[int], stride: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The same, and `reference.moments` of it."""
    y, parts = _forward(x, weight, dilations, stride, moments=True)
    assert parts is not None
    means, squares, counts = parts  # (S, K C), (S, K C), (S, 1)
    total = counts.sum()
    mean = (means * counts).sum(0) / total
    var = (squares + (means - mean).square() * counts).sum(0) / total
    return y, mean, var


def _forward(
    x: Tensor,
    weight: Tensor,
    dilations: Sequence[int],
    stride: int,
    *,
    epilogue: Epilogue | None = None,
    moments: bool = False,
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor] | None]:
    form = memory_format(x)
    x = dense(x, form)
    batch, channels, height, width = x.shape
    branches, size = len(dilations), (-(-height // stride), -(-width // stride))
    y = torch.empty(
        (batch, branches * channels, *size), dtype=x.dtype, device=x.device, memory_format=form
    )
    cut = tiles(batch, channels, size, form, values=1024, slots=SLOTS if moments else None)
    wide = torch.promote_types(x.dtype, torch.float32)
    parts = None
    if moments:
        shape = (cut.slots, branches * channels)
        parts = (
            torch.empty(shape, dtype=wide, device=x.device),
            torch.empty(shape, dtype=wide, device=x.device),
            torch.empty((cut.slots, 1), dtype=wide, device=x.device),
        )
    if y.numel():
        with _on(x):
            forward_kernel[(cut.slots * cut.blocks,)](
                x,
                by_block(weight, cut),
                *(epilogue or (x, x, x, x)),
                y,
                *(parts or (x, x, x)),
                *_sizes(x, size),
                *strides(x, form),
                *strides(y, form),
                *_walk(cut),
                K=branches,
                DILATIONS=tuple(dilations),
                STRIDE=stride,
                ACT=epilogue is not None,
                MOMENTS=moments,
                ACC=_language(wide),
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
    cut = tiles(batch, channels, size, form, values=512, tall=False, least_rows=4 * max(dilations))
    block = _block(cut)
    del block["BLOCK_H"]
    if dx.numel():
        with _on(grad):
            grad_x_kernel[(cut.slots * cut.blocks,)](
                grad,
                by_block(weight, cut),
                dx,
                *_sizes(dx, (grad.shape[2], grad.shape[3])),
                *strides(dx, form),
                *strides(grad, form),
                *_walk(cut),
                K=len(dilations),
                DILATIONS=tuple(dilations),
                FIRST=nearest(dilations),
                STRIDE=stride,
                ACC=_language(torch.promote_types(grad.dtype, torch.float32)),
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
    cut = tiles(batch, channels, size, form, values=1024, slots=SLOTS)
    partial = torch.empty((cut.slots, branches, 9, channels), dtype=wide, device=x.device)
    if not grad.numel():
        partial.zero_()
    else:
        with _on(x):
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
                ACC=_language(wide),
                **_block(cut),
            )
    found = partial.sum(0).transpose(1, 2).reshape(branches, channels, 3, 3)
    return found.contiguous()


def by_block(weight: Tensor, cut: Tiles) -> Tensor:
    """Weights as the kernels read them, zeros where the last block has no channels.

    Shape: (K, C, 3, 3) -> (blocks, K, 9, BLOCK_C)
    """
    deep = cut.block[2]
    taps = weight.flatten(2).movedim(1, 2)  # (K, 9, C)
    lacking = cut.blocks * deep - weight.shape[1]
    if lacking:
        taps = F.pad(taps, (0, lacking))
    return taps.view(*taps.shape[:2], cut.blocks, deep).movedim(2, 0).contiguous()


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


def _language(dtype: torch.dtype) -> Any:
    return tl.float64 if dtype == torch.float64 else tl.float32


def _on(x: Tensor) -> AbstractContextManager[Any]:
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()
