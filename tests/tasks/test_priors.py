"""The grid of priors: the official ones, and the rule for every other size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from close import assert_within
from espnetv2.errors import UserError
from espnetv2.tasks.priors import PER_CELL, map_sizes, prior_sides, priors

SIDES = st.integers(1, 700)


@pytest.mark.data
def test_priors_equal_the_official_ones_at_300(shared):
    stored = np.load(shared / "parity" / "espnetv2_ssd300_voc_s_2.0_crcfill.npz")
    assert_within("priors", priors((300, 300)), stored["priors"], 1e-6)


def test_maps_and_sides_equal_the_official_ones_at_512():
    assert map_sizes((512, 512)) == [(s, s) for s in (64, 32, 16, 8, 4, 1)]
    assert prior_sides(512) == [52, 133, 214, 295, 376, 457, 538]
    grid = priors((512, 512))
    assert len(grid) == 32_742
    fifth = grid[PER_CELL * (64 * 64 + 32 * 32 + 16 * 16 + 8 * 8)]
    assert_within("first of the map of stride 128", fifth, [0.125, 0.125, *2 * [376 / 512]], 1e-7)


def test_small_things_get_smaller_priors_in_the_same_places():
    usual, small = priors((300, 300)), priors((300, 300), smallest=0.06)
    assert prior_sides(300, smallest=0.06) == [18, 67, 117, 166, 216, 265, 315]
    assert_within("first", small[0, 2:] * 300, [18, 18], 1e-4)
    assert_within("places", small[:, :2], usual[:, :2], 0)
    for share in (0, 1, -0.1):
        with pytest.raises(UserError, match="must be a share of the picture"):
            priors((300, 300), smallest=share)


@settings(max_examples=30, deadline=None)
@given(SIDES, SIDES)
def test_priors_lie_inside_any_picture(height, width):
    grid = priors((height, width))
    cells = sum(rows * columns for rows, columns in map_sizes((height, width)))
    assert len(grid) == PER_CELL * cells
    assert grid.min() >= 0
    assert grid.max() <= 1
    assert grid[:, 2:].min() > 0


@settings(max_examples=30, deadline=None)
@given(SIDES, SIDES)
def test_a_turned_picture_has_turned_priors(height, width):
    upright, turned = priors((height, width)), priors((width, height))
    places = np.unique(np.round(upright[:, [1, 0]].numpy(), 5), axis=0)
    assert_within("places", np.unique(np.round(turned[:, :2].numpy(), 5), axis=0), places, 1e-4)


def test_squares_stay_square_in_pixels_on_an_oblong_picture():
    grid = priors((160, 320)).numpy()
    assert_within("sides", grid[::PER_CELL, 2] * 320, grid[::PER_CELL, 3] * 160, 1e-4)


def test_a_picture_smaller_than_a_stride_has_its_prior_in_the_middle():
    grid = priors((32, 32))
    places = grid[PER_CELL * (4 * 4 + 2 * 2 + 1) :: PER_CELL, :2]  # of strides 64 and more
    assert_within("places", places, [[0.5, 0.5]] * 3, 1e-7)


def test_an_empty_picture_is_refused():
    with pytest.raises(UserError, match="0 x 5 is empty"):
        priors((0, 5))
