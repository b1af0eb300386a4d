"""Effective receptive fields: holes of dilated convolutions are found, and closed by fusion."""

import pytest
import torch
import torch.nn.functional as F

from espnetv2 import create_model
from espnetv2.layers.eesp import EESP
from espnetv2.profiling.effective_field import effective_field


def _branch(unit, index):
    return lambda x: unit.views(x)[index]


def _unit(fusion):
    return EESP(16, 16, max_receptive_field=13, fusion=fusion).eval()


@pytest.mark.parametrize(
    ("index", "alone", "fused"), [(0, 9, 9), (1, 9, 17), (2, 9, 25), (3, 9, 33)]
)
def test_fusion_fills_holes_of_a_branch(index, alone, fused):
    """Taps of dilations 1 to d share the centre: 8 d + 1 pixels of (2 d + 1) squared."""
    size = (2 * (index + 1) + 1) ** 2
    for fusion, touched in ((False, alone), (True, fused)):
        field = effective_field(_branch(_unit(fusion), index), (33, 33), channels=16)
        assert field.theoretical == (2 * (index + 1) + 1,) * 2
        assert field.gridding == pytest.approx(1 - touched / size)


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("rate", [1, 2, 4, 8])
def test_span_of_the_gradient_is_the_closed_form(kernel, rate):
    """Table 1: n taps at dilation r see (n - 1) r + 1 pixels; nothing outside moves the value."""
    reach = (kernel - 1) * rate // 2
    weight = torch.ones(1, 1, kernel, kernel)
    field = effective_field(
        lambda x: F.conv2d(x, weight, padding=reach, dilation=rate), (65, 65), channels=1
    )
    rows, columns = torch.nonzero(field.gradient, as_tuple=True)
    closed = (kernel - 1) * rate + 1
    assert int(rows.max() - rows.min()) + 1 == closed
    assert int(columns.max() - columns.min()) + 1 == closed
    assert field.theoretical == (closed, closed)


def test_stride_keeps_the_field_around_its_pixel():
    field = effective_field(lambda x: F.avg_pool2d(x, 3, 2, 1), (31, 40), channels=1)
    assert field.centre == (16, 20)  # ceil(31 / 2) // 2 * 2, 20 // 2 * 2
    assert field.share_inside == 1
    assert field.gridding == 0


def test_whole_network_sees_less_than_it_may():
    """A classifier's field covers the picture; what moves its centre visibly does not."""
    network = create_model("espnetv2_s0_5").eval()
    field = effective_field(network.forward_features, (64, 64), inputs=2)
    assert min(field.theoretical) > 64
    assert field.share_inside == pytest.approx(1)
    assert 1 <= field.concentration <= 64
    assert 1 < field.extent <= 64


def test_same_seed_gives_the_same_numbers():
    unit = _unit(True)
    first, second = (effective_field(unit, (17, 17), channels=16, seed=3) for _ in range(2))
    assert torch.equal(first.gradient, second.gradient)


@pytest.mark.parametrize(
    ("function", "inputs"),
    [(lambda x: x.mean((2, 3)), 1), (lambda x: x, 0)],
    ids=["vector", "none"],
)
def test_what_is_no_map_is_refused(function, inputs):
    with pytest.raises(ValueError, match="must"):
        effective_field(function, (9, 9), inputs=inputs)
