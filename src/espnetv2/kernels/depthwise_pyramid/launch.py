"""Launches the kernels of `triton.py`; imported where Triton is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from espnetv2.kernels.depthwise_pyramid.triton import (
    forward_kernel,
    grad_weight_kernel,
    grad_x_kernel,
)
from espnetv2.kernels.layout import (
    Cut,
    block_of,
    cut,
    dense,
    memory_format,
    pack,
    strides,
)
from espnetv2.kernels.norm_act.launch import joined, language, on

WIDEST = 8
"""Columns of a strip, at most."""

ENOUGH = 512
"""Warps, one for each scheduler of a large GPU; strips are narrower where wide ones give less."""

PROGRAMS, SUMMING = 1024, 512
"""Of four warps, to keep a large GPU busy: forward, and where more registers leave less room."""

REGISTERS = 64
"""Sums that a thread of `grad_x_kernel` may have in each of two channels; half as many again with
stride 2, where half of the columns have no gradient."""


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
    shape = (batch, channels, *size)
    strip = strip_of(shape, form, dilations)
    each = 8 if form == torch.contiguous_format else 4 if max(dilations) <= 6 else 2
    shares = cut(shape, strip=strip, block=packed.shape[-1], each=each, programs=PROGRAMS)
    wide = torch.promote_types(x.dtype, torch.float32)
    parts = None
    if moments:
        means, squares = (
            torch.empty((shares.slots, y.shape[1]), dtype=wide, device=x.device) for _ in range(2)
        )
        parts = means, squares, torch.empty(shares.slots, dtype=wide, device=x.device)
    if y.numel():
        with on(x):
            forward_kernel[(shares.slots * shares.blocks,)](
                *(x, packed, x if factors is None else factors, y, *(parts or (x, x, x))),
                **_walk(shares, form, x, size, y=y),
                DILATIONS=tuple(dilations),
                STRIDE=stride,
                ACT=factors is not None,
                MOMENTS=moments,
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
    shape = (len(grad), weight.shape[1], *size)
    dx = torch.empty(shape, dtype=grad.dtype, device=grad.device, memory_format=form)
    most = REGISTERS * (1 + stride) // 2 // (2 * max(dilations) + 1)
    strip = strip_of(shape, form, dilations, step=stride, most=max(most, stride))
    shares = cut(
        shape,
        strip=strip,
        block=block_of(shape[1], form),
        each=2,
        programs=SUMMING,
        least_rows=4 * max(dilations),
    )
    if dx.numel():
        with on(grad):
            grad_x_kernel[(shares.slots * shares.blocks,)](
                *(grad, pack(weight, shares.block), dx),
                **_walk(shares, form, dx, (grad.shape[2], grad.shape[3]), g=grad),
                DILATIONS=tuple(dilations),
                STRIDE=stride,
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
    shape = (batch, channels, *size)
    shares = cut(
        shape,
        strip=strip_of(shape, form, dilations),
        block=block_of(channels, form),
        each=2 if branches <= 4 else 1,
        programs=SUMMING,
        least_rows=8,
    )
    wide = torch.promote_types(x.dtype, torch.float32)
    partial = torch.empty((shares.slots, branches, 9, channels), dtype=wide, device=x.device)
    if not grad.numel():
        partial.zero_()
    else:
        with on(x):
            grad_weight_kernel[(shares.slots * shares.blocks,)](
                *(grad, x, partial),
                **_walk(shares, form, x, size, g=grad),
                DILATIONS=tuple(dilations),
                STRIDE=stride,
            )
    found = partial.sum(0).transpose(1, 2).reshape(branches, channels, 3, 3)
    return found.contiguous()


def strip_of(
    shape: tuple[int, int, int, int],
    form: torch.memory_format,
    dilations: Sequence[int],
    *,
    step: int = 1,
    most: int = WIDEST,
) -> int:
    """Columns of a strip: as many as cost the fewest instructions for a row of an image.

    A wide strip takes a value that it has loaded for many taps; one that is wider than the image
    computes what nobody wants. Without channels side by side, columns are spread over threads.

    >>> [strip_of((256, 64, w, w), torch.channels_last, [1, 2, 3, 4]) for w in (56, 32, 28, 14, 7)]
    [8, 8, 7, 7, 7]
    """
    if form == torch.contiguous_format:
        return step
    return _strip(shape, tuple(dilations), step, most, ENOUGH)


@cache
def _strip(
    shape: tuple[int, int, int, int], dilations: tuple[int, ...], step: int, most: int, enough: int
) -> int:
    batch, channels, height, width = shape
    widths = [strip for strip in range(min(2, most), min(WIDEST, most) + 1) if strip % step == 0]
    branches, around = len(dilations), 2 * max(dilations) + 4 * sum(dilations)

    def cost(strip: int) -> int:
        loads = (2 * branches + 1) * strip + around
        return -(-width // strip) * (9 * branches * strip + 2 * loads)

    threads = batch * channels * height // 4
    fitting = [one for one in widths if threads * -(-width // one) >= 32 * enough]
    return min(fitting or widths[:1], key=cost)


def _packed(weight: Tensor, x: Tensor) -> Tensor:
    return pack(weight, block_of(x.shape[1], memory_format(x)))


def _walk(
    shares: Cut, form: torch.memory_format, x: Tensor, size: tuple[int, int], **beside: Tensor
) -> dict[str, Any]:
    """What every kernel takes of its shares, of the map x and of `beside`, the map of branches."""
    ((name, other),) = beside.items()
    x_c, x_p = strides(x, form)
    other_c, other_p = strides(other, form)
    return {
        "C": x.shape[1],
        "x_c": x_c,
        "x_p": x_p,
        f"{name}_c": other_c,
        f"{name}_p": other_p,
        "H": x.shape[2],
        "W": x.shape[3],
        "HO": size[0],
        "WO": size[1],
        "strips": shares.strips,
        "bands": shares.bands,
        "rows_per_band": shares.rows,
        "K": other.shape[1] // x.shape[1],
        "WHOLE": shares.whole,
        "ACC": language(x),
        "STRIP": shares.strip,
        "BLOCK_S": shares.lanes,
        "BLOCK_C": shares.block,
        "num_warps": shares.warps,
        "enable_fp_fusion": True,
    }
