"""Launches the kernels of `triton.py`; imported where Triton is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from espnetv2.kernels.grouped_pointwise.triton import forward_kernel, grad_weight_kernel
from espnetv2.kernels.layout import dense, memory_format, power, strides
from espnetv2.kernels.norm_act.launch import joined, on

PROGRAMS, SUMMING = 1056, 528
"""Of a launch, at most: a few for each multiprocessor of a large GPU; fewer where slots add up."""

BYTES = 16384
"""Of a tile of the input; three of them are on their way at a time."""

WIDEST = {"short": 128, "tf32": 64, "ieee": 64}
"""Channels of a block, at most, by how products are made: the tiles of three steps, or two where
channels go block by block, fit into the 99 kB that even small GPUs have for a program."""

EXACT = 16
"""Of the channels that are summed, in products of float32, which go through registers."""


@dataclass(frozen=True)
class Maps:
    """Where the pixels of maps of one memory format lie.

    Attributes:
        images: One for all with channels last.
        pixels: Of an image.
    """

    form: torch.memory_format
    images: int
    pixels: int

    @classmethod
    def of(cls, x: Tensor) -> Maps:
        """Of a map (B, C, H, W) and those of its size."""
        form, pixels = memory_format(x), x.shape[2] * x.shape[3]
        if form == torch.channels_last:
            return cls(form, 1, len(x) * pixels)
        return cls(form, len(x), pixels)

    def steps(self, name: str, x: Tensor) -> dict[str, int]:
        """Of one of them, to the next image, channel and pixel."""
        c, p = strides(x, self.form)
        return {f"{name}_i": x[0].numel(), f"{name}_c": c, f"{name}_p": p}

    def shared(self, block: int, slots: int) -> dict[str, int]:
        """Tiles of so many pixels, and who takes them."""
        tiles = self.images * -(-self.pixels // block)
        return {"pixels": self.pixels, "tiles": tiles, "slots": max(1, min(tiles, slots))}


def forward(x: Tensor, weight: Tensor, groups: int) -> Tensor:
    """See `reference.grouped_pointwise`."""
    return _forward(x, weight, groups, len(weight))[0]


def forward_act(
    x: Tensor, weight: Tensor, factors: Tensor, residual: Tensor | None, groups: int
) -> Tensor:
    """See `reference.grouped_pointwise_act`."""
    given = factors.contiguous()
    return _forward(x, weight, groups, len(weight), factors=given, residual=residual)[0]


def forward_moments(x: Tensor, weight: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """The same as `forward`, and `reference.moments` of it."""
    y, parts = _forward(x, weight, groups, len(weight), moments=True)
    assert parts is not None
    return y, *joined(*parts)


def grad_x(grad: Tensor, weight: Tensor, groups: int) -> Tensor:
    """See `reference.grad_x`."""
    return _forward(grad, weight, groups, groups * weight.shape[1], back=True)[0]


def _forward(
    x: Tensor,
    weight: Tensor,
    groups: int,
    channels: int,
    *,
    back: bool = False,
    factors: Tensor | None = None,
    residual: Tensor | None = None,
    moments: bool = False,
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor] | None]:
    maps = Maps.of(x)
    x, weight = dense(x, maps.form), weight.to(x.dtype).contiguous()
    shape = (len(x), channels, *x.shape[2:])
    y = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=maps.form)
    ks, ns = x.shape[1] // groups, channels // groups
    how, block_k, block_n = _blocks(x, ks, ns)
    blocks = groups * -(-ns // block_n)
    block = _pixels(x, block_k, maps, blocks)
    walk = maps.shared(block, PROGRAMS // blocks)
    parts = None
    if moments:
        sums = torch.empty((2, walk["slots"], channels), dtype=torch.float32, device=x.device)
        parts = sums[0], sums[1], sums.new_empty(walk["slots"])
    beside = x if residual is None else dense(residual, maps.form)
    if y.numel():
        with on(x):
            forward_kernel[(walk["slots"] * blocks,)](
                *(x, weight, x if factors is None else factors, beside, y, *(parts or (x, x, x))),
                **maps.steps("x", x),
                **maps.steps("y", y),
                **walk,
                w_n=1 if back else ks,
                w_k=ns if back else 1,
                GROUPS=groups,
                KS=ks,
                NS=ns,
                ACT=factors is not None,
                RESIDUAL=residual is not None,
                MOMENTS=moments,
                **_compiled(how, block, block_k, block_n, loops=ks > block_k),
            )
    return y, parts


def grad_weight(grad: Tensor, x: Tensor, groups: int) -> Tensor:
    """See `reference.grad_weight`; the same bits every time."""
    maps = Maps.of(x)
    x, grad = dense(x, maps.form), dense(grad, maps.form)
    ks, ns = x.shape[1] // groups, grad.shape[1] // groups
    how, block_k, block_n = _blocks(x, ks, ns)
    blocks = groups * -(-ns // block_n) * -(-ks // block_k)
    walk = maps.shared(64, SUMMING // blocks)
    partial = torch.empty((walk["slots"], groups * ns, ks), dtype=torch.float32, device=x.device)
    if not grad.numel():
        return partial.zero_().sum(0)
    with on(x):
        grad_weight_kernel[(walk["slots"] * blocks,)](
            *(grad, x, partial),
            **maps.steps("x", x),
            **maps.steps("g", grad),
            **walk,
            GROUPS=groups,
            KS=ks,
            NS=ns,
            **_compiled(how, 64, block_k, block_n),
        )
    return partial.sum(0)


def _blocks(x: Tensor, ks: int, ns: int) -> tuple[str, int, int]:
    """How products are made, and blocks of a group's channels, in and out.

    Products of float32 are of TF32 where torch lets its own convolutions use it.
    """
    how = "short"
    if x.dtype == torch.float32:
        cudnn: Any = torch.backends.cudnn
        how = "tf32" if x.is_cuda and cudnn.conv.fp32_precision == "tf32" else "ieee"
    most = WIDEST[how]
    return how, EXACT if how == "ieee" else _power(ks, most), _power(ns, most)


def _power(channels: int, most: int) -> int:
    """A block of these channels; a matrix unit takes no fewer than 16."""
    return max(16, min(most, power(channels)))


def _pixels(x: Tensor, block_k: int, maps: Maps, blocks: int) -> int:
    """Pixels of a tile: as many as its bytes allow, fewer where that leaves processors idle."""
    block = min(128, BYTES // (x.element_size() * max(block_k, 64)))
    while block > 16 and maps.images * -(-maps.pixels // block) * blocks < PROGRAMS // 4:
        block //= 2
    return block


@cache
def _compiled(
    how: str, block: int, block_k: int, block_n: int, *, loops: bool = False
) -> dict[str, Any]:
    """What kernels are compiled for."""
    return {
        "PRECISION": "ieee" if how == "ieee" else "tf32",
        "BLOCK_P": block,
        "BLOCK_K": block_k,
        "BLOCK_N": block_n,
        "num_warps": 8 if max(block, block_k) * block_n > 4096 else 4,
        "num_stages": 2 if loops else 3,
        "enable_fp_fusion": True,
    }
