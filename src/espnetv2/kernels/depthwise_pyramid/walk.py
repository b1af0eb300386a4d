"""Shares maps out among programs that walk down the rows; launches `forward.cu`, `backward.cu`.

For halves with channels last, on GPUs whose matrix units take bfloat16; forward, of stride 1. For
all else `launch.py` has Triton's kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from espnetv2.kernels.layout import dense, memory_format, power
from espnetv2.kernels.norm_act.launch import joined, on
from espnetv2.kernels.nvrtc import launch, ready, source

FILES = {
    f"pyramid_{name}": [Path(__file__).with_name(file) for file in ("walk.cuh", f"{name}.cu")]
    for name in ("forward", "backward")
}
"""Of each kernel."""

SLOTS = 128
"""Of a program, at most: columns times groups of 8 channels, two threads each. A thread wants so
many registers that this fills a multiprocessor."""

WIDEST = 64
"""Columns of a segment, at most."""

GROUPS = (4, 2, 3, 5, 1)
"""Of a program, the first that divide a map's. Two fill a sector; four are for narrow maps only."""

PITCHES = {1: 0, 2: 4, 3: 3, 4: 2, 5: 5}
"""Chunks from group to group, modulo 8, so that neighbours lie in different banks."""

PROGRAMS, FEWEST = 264, 66
"""Two for every multiprocessor of a large GPU, where images are cut into bands for it; and so few
that smaller programs, Triton's, should be faster. Both are estimates."""

BRANCHES, LARGEST = (2, 4), 4
"""Numbers of branches, and the largest dilation, whose sums fit into the registers."""


@dataclass(frozen=True)
class Walk:
    """How a map is shared out.

    Attributes:
        columns: Of a segment, which is a piece of the rows of one image.
        across: Segments of an image.
        segments: Of all images.
        beside: Segments of a program.
        groups: Of 8 channels, of a program.
        bands: Of an image.
        rows: Of a band, which a program walks down.
    """

    columns: int
    across: int
    segments: int
    beside: int
    groups: int
    bands: int
    rows: int

    @property
    def slots(self) -> int:
        """Programs that share one channel."""
        return -(-self.segments // self.beside) * self.bands

    @property
    def threads(self) -> int:
        """Of a program; a warp has 16 pixels of 8 channels."""
        return self.beside * self.columns * self.groups * 2

    def programs(self, channels: int) -> int:
        """Of a map with so many channels."""
        return self.slots * channels // (8 * self.groups)

    def pitch(self, around: int) -> int:
        """Chunks of 8 channels from group to group, with so many columns around a segment."""
        held = self.beside * (self.columns + around)
        return held + (PITCHES[self.groups] - held) % 8


def walk(shape: tuple[int, int, int, int], largest: int) -> Walk:
    """Share out the map (B, C, H, W) of a branch, C a multiple of 8.

    >>> [walk((256, 64, w, w), 4).threads for w in (56, 28, 14, 7)]
    [256, 256, 256, 256]
    """
    return _walk(shape, largest, SLOTS)


@cache
def _walk(shape: tuple[int, int, int, int], largest: int, slots: int) -> Walk:
    batch, channels, height, width = shape
    eights = channels // 8
    widths = {many: min(WIDEST, slots // many // 16 * 16) for many in GROUPS}
    groups, widest = next(
        (many, most)
        for many, most in widths.items()
        if eights % many == 0 and most and (many != 4 or width <= most)
    )
    across = -(-width // widest)
    segments, wanted = batch * across, -(-width // across)
    columns = 8 if wanted <= 8 else -(-wanted // 16) * 16
    most = 1 << (slots // (groups * columns)).bit_length() - 1
    beside = max(min(most, power(segments)), 16 // columns)
    programs = -(-segments // beside) * (eights // groups)
    few = min(-(-PROGRAMS // programs), max(1, height // (4 * largest)))
    rows = -(-height // few)
    return Walk(
        columns=columns,
        across=across,
        segments=segments,
        beside=beside,
        groups=groups,
        bands=-(-height // rows),
        rows=rows,
    )


def walks(x: Tensor, dilations: Sequence[int], stride: int) -> bool:
    """Whether the kernels take a map (B, C, H, W) and these branches; forward of stride 1 only."""
    if not (
        x.dtype in (torch.bfloat16, torch.float16)
        and memory_format(x) == torch.channels_last
        and x.shape[1] % 8 == 0
        and len(dilations) in BRANCHES
        and max(dilations) <= LARGEST
        and x.numel() > 0
        and ready(x.device)
    ):
        return False
    batch, channels, *size = x.shape
    height, width = (-(-side // stride) for side in size)
    shares = walk((batch, channels, height, width), max(dilations))
    return shares.programs(channels) >= FEWEST


def forward(x: Tensor, weight: Tensor, dilations: Sequence[int]) -> Tensor:
    """See `reference.depthwise_pyramid`."""
    y, _ = _forward(x, weight, dilations, moments=False)
    return y


def forward_moments(
    x: Tensor, weight: Tensor, dilations: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """The same, and `reference.moments` of it."""
    y, parts = _forward(x, weight, dilations, moments=True)
    return y, *joined(*parts)


def _forward(
    x: Tensor, weight: Tensor, dilations: Sequence[int], *, moments: bool
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    x = _aligned(x)
    batch, channels, height, width = x.shape
    shares = walk((batch, channels, height, width), max(dilations))
    shape, form = (batch, len(dilations) * channels, height, width), torch.channels_last
    y = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=form)
    slots = shares.slots if moments else 0
    means, squares, counts = (
        torch.empty(one, dtype=torch.float32, device=x.device)
        for one in ((slots, shape[1]), (slots, shape[1]), (slots,))
    )
    pitch = shares.pitch(0)
    _launch(
        "pyramid_forward",
        *(x, weight.float().contiguous(), y, means, squares, counts),
        shares=shares,
        dilations=dilations,
        stride=1,
        planes=1,
        stages=6,
        beside=2 * len(dilations) * shares.groups * pitch,
        PITCH_Y=pitch,
        MOMENTS=int(moments),
    )
    return y, (means, squares, counts)


def backward(
    grad: Tensor, x: Tensor, weight: Tensor, dilations: Sequence[int], stride: int
) -> tuple[Tensor, Tensor]:
    """Gradients of the map, in its type, and of the weights, in float32; the same bits every time.

    Shape: grad (B, K C, H', W'), x (B, C, H, W), weight (K, C, 3, 3)
        -> (B, C, H, W), (K, C, 3, 3)
    """
    x, grad = _aligned(x), _aligned(dense(grad, torch.channels_last))
    batch, channels = x.shape[:2]
    branches = len(dilations)
    shares = walk((batch, channels, grad.shape[2], grad.shape[3]), max(dilations))
    dx = torch.empty_like(x)
    shape = shares.slots, branches, 9, channels
    partial = torch.empty(shape, dtype=torch.float32, device=x.device)
    _launch(
        "pyramid_backward",
        *(x, grad, weight.float().contiguous(), dx, partial),
        shares=shares,
        dilations=dilations,
        stride=stride,
        planes=branches + stride * stride,
        stages=5 - stride,
    )
    found = partial.sum(0).transpose(1, 2).reshape(branches, channels, 3, 3)
    return dx, found.contiguous()


def _launch(
    name: str,
    x: Tensor,
    *others: Tensor,
    shares: Walk,
    dilations: Sequence[int],
    stride: int,
    planes: int,
    stages: int,
    beside: int = 0,
    **defined: int,
) -> None:
    """Launch a kernel on x, other maps and vectors.

    Args:
        planes: Maps of which rows lie in shared memory.
        stages: Rows there: one is in use, the next is ready, the others are on their way.
        beside: Chunks of shared memory that it wants besides.
    """
    if elsewhere := [one.device for one in others if one.device != x.device]:
        raise ValueError(f"a map is on {x.device}, what belongs to it on {elsewhere[0]}")
    _, channels, height, width = x.shape
    pitch = shares.pitch(2 * -(-max(dilations) // stride))
    text = source(
        *FILES[name],
        FLOAT16=int(x.dtype == torch.float16),
        K=len(dilations),
        DILATIONS=str(dilations)[1:-1].join("{}"),
        LARGEST=max(dilations),
        STRIDE=stride,
        C=channels,
        COLUMNS=shares.columns,
        BESIDE=shares.beside,
        GROUPS=shares.groups,
        PITCH=pitch,
        PLANES=planes,
        STAGES=stages,
        **defined,
    )
    sizes = height, width, shares.segments, shares.across, shares.bands, shares.rows
    with on(x):
        launch(
            text,
            name,
            (x, *others, *sizes),
            blocks=shares.programs(channels),
            threads=shares.threads,
            shared=16 * (stages * planes * shares.groups * pitch + beside),
        )


def _aligned(x: Tensor) -> Tensor:
    """The map, or a copy where it does not begin at a multiple of 16 bytes."""
    return x.clone() if x.data_ptr() % 16 else x
