"""Receptive fields and gridding, computed a second time by other means."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from espnetv2.reproduce import gridding, receptive_field


@pytest.mark.parametrize("taps", receptive_field.TAPS)
@pytest.mark.parametrize("rate", receptive_field.RATES)
def test_the_table_is_the_closed_form_by_another_gradient(taps, rate):
    """(n - 1) r + 1, from autograd on a plain convolution that shares no code with the table."""
    image = torch.zeros(1, 1, 1, 131, requires_grad=True)
    weight = torch.ones(1, 1, 1, taps)
    padding = (taps - 1) * rate // 2
    F.conv2d(image, weight, padding=(0, padding), dilation=(1, rate))[0, 0, 0, 65].backward()
    touched = np.flatnonzero(image.grad.numpy())
    closed = (taps - 1) * rate + 1
    assert touched[-1] - touched[0] + 1 == closed
    assert len(touched) == taps
    assert receptive_field.measured_span(taps, rate) == closed


def test_the_report_holds_the_closed_form(reports):
    found = {row.what: row for row in reports("receptive-field").rows}
    for taps in receptive_field.TAPS:
        for rate in receptive_field.RATES:
            row = found[f"{taps} taps, dilation {rate}, pixels"]
            assert (row.paper, row.ours) == (str((taps - 1) * rate + 1), (taps - 1) * rate + 1)


def _touched(dilations):
    """Pixels that 3x3 kernels with these dilations reach, drawn by hand."""
    reach = max(dilations)
    canvas = np.zeros((2 * reach + 1,) * 2, bool)
    for d in dilations:
        for y in (-d, 0, d):
            for x in (-d, 0, d):
                canvas[reach + y, reach + x] = True
    return canvas


@pytest.mark.parametrize("branch", range(4))
@pytest.mark.parametrize("fusion", [True, False])
def test_holes_of_a_branch_are_those_of_kernels_drawn_by_hand(branch, fusion):
    dilations = range(1, branch + 2) if fusion else [branch + 1]
    expected = 100 * (1 - _touched(list(dilations)).mean())
    found = gridding.branch_field(branch, fusion=fusion)
    assert 100 * found.gridding == pytest.approx(expected)


@pytest.mark.parametrize("index", range(1, 5))
def test_holes_of_the_older_unit_too(index):
    """Its first branch stays out of the sums (D30)."""
    dilations = gridding.ESP_DILATIONS[1 : index + 1]
    assert gridding.esp_field(index, fusion=True).gridding == pytest.approx(
        1 - _touched(list(dilations)).mean()
    )


def test_fusion_smooths_what_stacked_units_see():
    """Holes close with depth either way; the checkerboard stays without fusion."""
    rough, smooth = (gridding.stacked(3, fusion=fusion).roughness for fusion in (False, True))
    assert rough > 1.9
    assert smooth < 1.5
