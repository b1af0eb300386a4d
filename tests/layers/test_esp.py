"""The ESP unit keeps its sums, its shapes and its split."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from close import FLOAT64, assert_close
from espnetv2.layers.esp import EPS, ESP, branch_widths


def _randomised(unit):
    """Norm statistics and slopes as a trained network has them, in float64, for inference."""
    for name, value in unit.state_dict().items():
        if value.is_floating_point():
            value.copy_(0.2 + torch.rand_like(value) if value.dim() == 1 else value)
        assert name
    return unit.double().eval()


@pytest.mark.parametrize(
    ("in_channels", "out_channels", "stride"), [(20, 20, 1), (40, 20, 1), (19, 64, 2)]
)
def test_equals_the_formula_written_out(in_channels, out_channels, stride):
    unit = _randomised(ESP(in_channels, out_channels, stride=stride))
    x = torch.randn(2, in_channels, 13, 18, dtype=torch.float64)

    reduced = torch.conv2d(x, unit.reduce.weight, stride=stride, padding=stride - 1)
    d1, d2, d4, d8, d16 = (
        torch.conv2d(reduced, branch.weight, padding=d, dilation=d)
        for branch, d in zip(unit.branches, (1, 2, 4, 8, 16), strict=True)
    )
    merged = torch.cat([d1, d2, d2 + d4, d2 + d4 + d8, d2 + d4 + d8 + d16], dim=1)
    if in_channels == out_channels:
        merged = merged + x
    norm = unit.out.norm
    column = (1, -1, 1, 1)
    scale = norm.weight / (norm.running_var + 1e-3).sqrt()
    normed = (merged - norm.running_mean.view(column)) * scale.view(column)
    expected = torch.nn.functional.prelu(normed + norm.bias.view(column), unit.out.act.weight)

    assert_close("ESP", unit(x), expected, FLOAT64)


def test_all_norms_use_the_large_eps():
    assert ESP(8, 10).out.norm.eps == EPS == 1e-3


def test_adds_the_input_only_where_shapes_agree():
    assert ESP(20, 20).residual
    assert not ESP(40, 20).residual
    assert not ESP(20, 20, stride=2).residual


@given(channels=st.integers(1, 300), branches=st.integers(1, 8))
def test_widths_add_up_and_only_the_first_differs(channels, branches):
    first, *others = branch_widths(channels, branches)
    assert first + sum(others) == channels
    assert len(others) + 1 == min(branches, channels)
    assert all(0 < width <= first for width in others)
    assert len(set(others)) <= 1


def test_widths_of_the_released_networks():
    assert branch_widths(64, 5) == (16, 12, 12, 12, 12)
    assert branch_widths(128, 5) == (28, 25, 25, 25, 25)
    assert branch_widths(20, 5) == (4, 4, 4, 4, 4)
    assert branch_widths(12, 5) == (4, 2, 2, 2, 2)


@settings(max_examples=20, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), stride=st.sampled_from([1, 2]))
def test_size_is_divided_by_the_stride_rounded_up(height, width, stride):
    out = ESP(6, 10, stride=stride)(torch.zeros(2, 6, height, width))
    assert out.shape == (2, 10, -(-height // stride), -(-width // stride))


def test_gradients_reach_every_parameter():
    unit = ESP(10, 10)
    unit(torch.randn(2, 10, 40, 40)).square().mean().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in unit.parameters())


def test_other_strides_are_refused():
    with pytest.raises(ValueError, match="stride must be 1 or 2, not 3"):
        ESP(8, 10, stride=3)
