"""The unit of ESPNet v1: full dilated convolutions in parallel."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from espnetv2.layers.conv import NormAct, conv

EPS = 1e-3
"""Of every norm in ESPNet v1; its activations are so small that this is part of the function."""


class ESP(nn.Module):
    """Efficient spatial pyramid: reduce, split, transform, merge.

    A convolution shrinks the input to about `out_channels / branches` maps: 1x1, or at stride 2
    a 3x3. Full 3x3 convolutions look at them with dilations 1, 2, 4, 8, 16; running sums of the
    dilated ones (hierarchical feature fusion) remove the checkerboard that dilation leaves. The
    input is added where the shapes agree, and only then come norm and PReLU. Unlike in the EESP
    unit, dilation 1 stays out of the sums and there is no norm and no activation inside.

    Paper: espnet.
    Shape: (B, in_channels, H, W) -> (B, out_channels, ceil(H / stride), ceil(W / stride))

    Args:
        stride: 1 or 2.
        branches: Parallel convolutions, K in the paper; no more than there are output channels.

    >>> ESP(19, 64, stride=2)(torch.zeros(1, 19, 9, 9)).shape
    torch.Size([1, 64, 5, 5])
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 1, branches: int = 5
    ) -> None:
        super().__init__()
        if stride not in (1, 2):
            raise ValueError(f"stride must be 1 or 2, not {stride}")
        widths = branch_widths(out_channels, branches)
        reduced = out_channels // len(widths)
        self.residual = stride == 1 and in_channels == out_channels  # D4
        self.reduce = conv(in_channels, reduced, 2 * stride - 1, stride=stride)
        self.branches = nn.ModuleList(
            conv(reduced, width, 3, dilation=2**index) for index, width in enumerate(widths)
        )
        self.out = NormAct(out_channels, eps=EPS)  # D11

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        reduced = self.reduce(x)  # (B, reduced, H / stride, W / stride)
        near, *far = (branch(reduced) for branch in self.branches)
        maps = [near]
        for index, branch in enumerate(far):
            maps.append(maps[-1] + branch if index else branch)  # D30
        merged = torch.cat(maps, dim=1)  # (B, out_channels, H / stride, W / stride)
        out: Tensor = self.out(merged + x if self.residual else merged)
        return out


def branch_widths(channels: int, branches: int) -> tuple[int, ...]:
    """Channels of each branch, near first; the first takes what does not divide.

    With fewer channels than branches there are as many branches as channels.

    >>> branch_widths(64, 5), branch_widths(3, 5)
    ((16, 12, 12, 12, 12), (1, 1, 1))
    """
    branches = min(branches, channels)  # D31
    width = channels // branches
    return (channels - (branches - 1) * width, *[width] * (branches - 1))
