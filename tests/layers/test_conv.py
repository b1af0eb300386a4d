"""Blocks that every network is made of."""

import math

import pytest
import torch
from torch import nn

from espnetv2.layers.conv import conv, init_he, resize


@pytest.mark.parametrize("dilation", [1, 2, 3, 4])
@pytest.mark.parametrize("side", [1, 2, 7, 8])
def test_stride_alone_decides_the_size(side, dilation):
    x = torch.zeros(1, 4, side, side)
    assert conv(4, 4, 3, dilation=dilation)(x).shape[-1] == side
    assert conv(4, 4, 3, stride=2, dilation=dilation)(x).shape[-1] == math.ceil(side / 2)


def test_corners_are_aligned():
    row = torch.tensor([[[[0.0, 1.0, 2.0]]]])
    assert resize(row, (1, 5)).flatten().tolist() == [0.0, 0.5, 1.0, 1.5, 2.0]


def test_he_fan_ignores_groups():
    """D13: torch's fan_out of a depth-wise kernel counts all output channels."""
    depthwise = conv(4096, 4096, 3, groups=4096)
    init_he(depthwise)
    assert depthwise.weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 4096)), rel=0.03)


def test_linear_starts_small():
    linear = nn.Linear(1000, 100)
    init_he(linear)
    assert linear.weight.std().item() == pytest.approx(0.001, rel=0.05)
    assert not linear.bias.any()
