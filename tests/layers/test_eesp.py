"""The EESP unit keeps its promises."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from close import FLOAT64, assert_close
from espnetv2.layers.conv import halve
from espnetv2.layers.eesp import EESP, EESPA, StridedEESP, branch_dilations


def randomize(module):
    """Give norms and slopes values of any sign, so that nothing cancels by chance."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight)
            nn.init.normal_(part.bias)
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
        if isinstance(part, nn.PReLU):
            nn.init.normal_(part.weight)
    return module


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (13, [1, 2, 3, 4]),
        (11, [1, 2, 3, 4]),
        (9, [1, 2, 3, 4]),
        (7, [1, 1, 2, 3]),
        (5, [1, 1, 1, 2]),
    ],
)
def test_dilations_are_the_official_table(limit, expected):
    assert expected == branch_dilations(4, limit)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("in_channels", [32, 64])
@pytest.mark.parametrize("fusion", [True, False])
def test_eesp_a_equals_eesp(stride, in_channels, fusion):
    """Fig. 1b and Fig. 1c are one function (paper sec. 3.2)."""
    unit = randomize(EESP(in_channels, 64, stride=stride, fusion=fusion)).double().eval()
    x = torch.randn(2, in_channels, 13, 17, dtype=torch.float64)
    assert_close("EESP-A", EESPA(unit)(x), unit(x), FLOAT64)


def test_eesp_a_has_as_many_parameters():
    unit = EESP(64, 64)
    assert sum(p.numel() for p in EESPA(unit).parameters()) == sum(
        p.numel() for p in unit.parameters()
    )


def test_fusion_sums_every_branch_from_the_first():
    """D2: the official code leaves no branch out, whatever its comment says."""
    unit, plain = EESP(16, 32), EESP(16, 32, fusion=False)
    plain.load_state_dict(unit.state_dict())
    x = torch.randn(1, 16, 9, 9)
    apart, fused = plain.eval().views(x), unit.eval().views(x)
    for i in range(4):
        assert_close(f"view {i}", fused[i], sum(apart[: i + 1]))


def test_residual_is_fixed_at_construction():
    """D4: added where channels agree and nothing strides, not by comparing shapes at run time."""
    assert EESP(32, 32).residual
    assert not EESP(32, 64).residual
    assert not EESP(32, 32, stride=2).residual
    unit = randomize(EESP(32, 32)).eval()
    x = torch.randn(1, 32, 5, 5)
    without = unit.merge(unit.fuse(torch.cat(unit.views(x), dim=1)))
    assert_close("residual", unit(x), unit.act(without + x))


def test_no_norm_between_dilated_convolutions_and_fusion():
    """D15."""
    assert all(type(branch) is nn.Conv2d for branch in EESP(16, 16).branches)


def test_closed_form_of_parameters():
    """EESP(N, N) has N^2/16 + N^2/4 + 3N/4 + 9N + 3N + 2N + N parameters (fact sheet)."""
    for n in (64, 128, 256):
        count = sum(p.numel() for p in EESP(n, n).parameters())
        assert count == n * n // 16 + n * n // 4 + 3 * n // 4 + 15 * n


def test_seven_times_fewer_parameters_than_esp():
    """Paper sec. 3.2: M = 240, g = K = 4, d = 60."""
    m, d, k = 240, 60, 4
    unit = EESP(m, m)
    convolutions = sum(p.numel() for p in unit.parameters() if p.dim() == 4)
    esp = m * d + 9 * d * d * k
    assert convolutions == m * d // 4 + (9 + d) * d * k
    assert 7.0 < esp / convolutions < 7.3


def test_kinds_of_convolution():
    x = torch.randn(1, 32, 14, 14)
    dilated, depthwise = EESP(32, 32, convolution="dilated"), EESP(32, 32, convolution="depthwise")
    assert [b.groups for b in dilated.branches] == [1] * 4
    assert [b.dilation for b in depthwise.branches] == [(1, 1)] * 4
    assert dilated(x).shape == depthwise(x).shape == x.shape


def test_widths_that_do_not_split_are_refused():
    with pytest.raises(ValueError, match="do not split"):
        EESP(32, 24)


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), limit=st.sampled_from([5, 7, 9, 13]))
def test_strided_unit_halves_and_rounds_up(height, width, limit):
    unit = EESP(16, 16, stride=2, max_receptive_field=limit, activate=False)
    down = StridedEESP(unit).eval()
    x, image = torch.randn(1, 16, height, width), torch.randn(1, 3, height, width)
    assert down(x, halve(image)).shape == (1, 32, -(-height // 2), -(-width // 2))


def test_strided_unit_has_no_idle_parameter():
    """D3: every parameter of ours gets a gradient."""
    down = StridedEESP(EESP(16, 16, stride=2, activate=False))
    down(torch.randn(2, 16, 8, 8), torch.randn(2, 3, 4, 4)).sum().backward()
    assert all(p.grad is not None for p in down.parameters())


def test_padded_zeros_count_in_the_mean():
    assert halve(torch.ones(1, 1, 4, 4))[0, 0, 0, 0] == pytest.approx(4 / 9)
