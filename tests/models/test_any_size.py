"""Any height and width from 32 up, odd ones too, batches of one and three, in every network."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from espnetv2.models.catalog import CATALOG, entry, list_models

IMAGES = [name for name in list_models() if CATALOG[name].task != "language"]
SMALL = [
    "espnetv2_s0_5",
    "espnetv2_seg_s0_5",
    "espnetv2_seg_arxiv_s0_5",
    "espnetv2_ssd300_s0_5",
    "espnet_c_p2_q3",
    "espnet_p2_q3",
    "shufflenetv1_g3_x0_25",
]
_BUILT = {}


def built(name):
    if name not in _BUILT:
        _BUILT[name] = entry(name).build(num_classes=5, in_channels=3).eval()
    return _BUILT[name]


def check(name, output, batch, size):
    task = CATALOG[name].task
    if task == "classification":
        assert output.shape == (batch, 5)
    elif name.startswith("espnet_c"):
        assert output.shape == (batch, 5, *(-(-side // 8) for side in size))
    elif task == "segmentation":
        assert output.shape == (batch, 5, *size)
    else:
        from espnetv2.tasks.priors import priors

        count = len(priors(size))
        assert output.scores.shape == (batch, count, 5)
        assert output.offsets.shape == (batch, count, 4)


@pytest.mark.parametrize("name", SMALL)
@settings(max_examples=8, deadline=None)
@given(size=st.tuples(st.integers(32, 400), st.integers(32, 400)), batch=st.sampled_from([1, 3]))
def test_values_at_any_size(name, size, batch):
    with torch.inference_mode():
        output = built(name)(torch.randn(batch, 3, *size))
    check(name, output, batch, size)
    values = output.scores if CATALOG[name].task == "detection" else output
    assert torch.isfinite(values).all()


@pytest.mark.parametrize("name", SMALL)
def test_values_at_two_thousand_a_side(name):
    with torch.inference_mode():
        check(name, built(name)(torch.zeros(1, 3, 1999, 33)), 1, (1999, 33))


@pytest.mark.parametrize("name", IMAGES)
def test_shapes_of_every_network(name):
    """On torch's meta device: shapes are computed, values are not."""
    with torch.device("meta"):
        network = entry(name).build(num_classes=5, in_channels=3).eval()
        for batch, size in ((1, (32, 33)), (3, (397, 331)), (1, (2000, 1333))):
            check(name, network(torch.empty(batch, 3, *size)), batch, size)
