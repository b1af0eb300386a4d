"""Spatial pyramids of the two segmentation decoders and of the detector."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espnetv2.layers.conv import ConvNormAct, NormAct, conv, halve, resize
from espnetv2.layers.shuffle import channel_shuffle

SMALLEST_VIEW = 5
"""Rows or columns that a scaled copy keeps at least (D7)."""


class AdaptivePool(nn.Module):
    """Average pooling to a given size; a module so that the deploy form can put in its own.

    Shape: (B, C, H, W) -> (B, C, *size)
    """

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """See the class."""
        return F.adaptive_avg_pool2d(x, size)


class PyramidPool(nn.Module):
    """Looks at a narrow copy of the map at several scales, then mixes the scales per channel.

    The scales of one channel are made neighbours by a channel shuffle, so that a grouped 3x3
    convolution joins them at the price of a depth-wise one.

    Paper: dicenet (efficient pyramid pooling), used by the released espnetv2 weights.
    Shape: (B, in_channels, H, W) -> (B, out_channels, H, W)

    Args:
        width: Channels per scale.
        scales: Relative sizes, largest first; each side is kept at 5 pixels or more (D7).
        activate: Whether to end with norm and PReLU; the last one of a network ends with a bias.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        width: int,
        scales: Sequence[float] = (2.0, 1.5, 1.0, 0.5, 0.1),
        activate: bool = True,
    ) -> None:
        super().__init__()
        self.scales = tuple(scales)
        self.ratios = tuple(_ratio(scale) for scale in scales)
        self.reduce = ConvNormAct(in_channels, width)
        self.pool = AdaptivePool()
        self.branches = nn.ModuleList(conv(width, width, 3, groups=width) for _ in self.scales)
        self.fuse = NormAct(width * len(self.scales))
        self.mix = ConvNormAct(width * len(self.scales), width, kernel_size=3, groups=width)
        self.project = conv(width, out_channels, bias=not activate)
        self.out = NormAct(out_channels) if activate else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = self.reduce(x)  # (B, P, H, W)
        views = [
            self._view(x, branch, ratio)
            for branch, ratio in zip(self.branches, self.ratios, strict=True)
        ]
        fused = channel_shuffle(self.fuse(torch.cat(views, dim=1)), groups=len(views))
        out: Tensor = self.out(self.project(self.mix(fused)))
        return out

    def _view(self, x: Tensor, branch: nn.Module, ratio: tuple[int, int]) -> Tensor:
        """One branch at its own size, brought back to the size of x."""
        height, width = x.shape[-2:]
        numerator, denominator = ratio
        size = (_scaled(height, *ratio), _scaled(width, *ratio))
        view: Tensor
        if numerator > denominator:
            view = self.pool(branch(resize(x, size)), (height, width))
        elif numerator < denominator:
            view = resize(branch(self.pool(x, size)), (height, width))
        else:
            view = branch(x)
        return view


class PoolingPyramid(nn.Module):
    """The map beside depth-wise looks at ever smaller copies of it, mixed by a 1x1.

    Each copy is pooled from the one before; the convolutions' results are not fed on.

    Paper: espnetv2 sec. 4.2 (the decoder of the arXiv v1 segmenter).
    Shape: (B, channels, H, W) -> (B, out_channels, H, W)
    """

    def __init__(self, channels: int, out_channels: int, *, levels: int = 4) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            conv(channels, channels, 3, groups=channels) for _ in range(levels)
        )
        self.project = ConvNormAct(channels * (levels + 1), out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        size = (x.shape[-2], x.shape[-1])
        views, shrunk = [x], x
        for branch in self.branches:
            shrunk = halve(shrunk)
            views.append(resize(branch(shrunk), size))
        out: Tensor = self.project(torch.cat(views, dim=1))
        return out


def _ratio(scale: float) -> tuple[int, int]:
    # whole numbers, since engines compute sizes that are not known in float32
    return Fraction(scale).limit_denominator(1000).as_integer_ratio()


def _scaled(side: int, numerator: int, denominator: int) -> int:
    rounded_up = (side * numerator + denominator - 1) // denominator
    # Python's own maximum would tie a traced graph to one of the two; D7
    return torch.sym_max(SMALLEST_VIEW, rounded_up)  # type: ignore[return-value]
