"""Pyramids keep sizes and mix every scale."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from close import assert_close
from espnetv2.layers.pyramid_pool import PoolingPyramid, PyramidPool


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 50), width=st.integers(1, 50))
def test_pyramids_keep_any_size(height, width):
    x = torch.randn(1, 12, height, width)
    assert PyramidPool(12, 7, width=3).eval()(x).shape == (1, 7, height, width)
    assert PoolingPyramid(12, 7).eval()(x).shape == (1, 7, height, width)


def test_pooled_sides_stay_at_five():
    """D7: on a 4x4 map the scale 0.1 looks at a 5x5 copy, not at 1x1."""
    seen = []
    pool = PyramidPool(8, 8, width=2).eval()
    pool.branches[4].register_forward_hook(lambda _m, _i, out: seen.append(out.shape[-2:]))
    pool(torch.randn(1, 8, 4, 4))
    pool(torch.randn(1, 8, 64, 128))
    assert [tuple(size) for size in seen] == [(5, 5), (7, 13)]


def test_scales_of_one_channel_become_neighbours():
    pool = PyramidPool(8, 4, width=3, scales=(1.0, 0.5)).eval()
    seen = []
    pool.mix.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    x = torch.randn(1, 8, 12, 12)
    pool(x)
    reduced = pool.reduce(x)
    near = pool.branches[0](reduced)
    small = pool.branches[1](F.adaptive_avg_pool2d(reduced, (6, 6)))
    far = F.interpolate(small, size=(12, 12), mode="bilinear", align_corners=True)
    fused = pool.fuse(torch.cat([near, far], dim=1))
    assert_close("order", seen[0], fused[:, [0, 3, 1, 4, 2, 5]])


@pytest.mark.parametrize("activate", [True, False])
def test_only_the_last_pyramid_has_a_bias(activate):
    pool = PyramidPool(8, 4, width=2, activate=activate)
    assert (pool.project.bias is None) == activate
