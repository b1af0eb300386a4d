"""torch.compile takes every network in one graph, for one size or for all."""

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from deploy.lively import lively, parts
from espnetv2.deploy.fold import fold
from espnetv2.models.catalog import CATALOG, entry

FAMILIES = ["espnetv2_seg_s0_5", "espnet_p2_q3", "eru_lm_7m"]
"""The slow tests hold all others."""
OURS = [name for name, row in CATALOG.items() if not row.baseline]
RIVALS = [name for name, row in CATALOG.items() if row.baseline]
FORMS = {
    "train": lambda network: network,
    "engines": lambda network: fold(network, activation="relu", dense_below=16),
}


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def examples(name):
    torch.manual_seed(7)
    if CATALOG[name].task == "language":
        return [torch.randint(0, 99, size) for size in [(6, 3), (4, 2), (9, 5)]]
    return [torch.randn(size) for size in [(2, 3, 160, 288), (3, 3, 129, 131), (2, 3, 300, 301)]]


def assert_compiles(network, inputs, *, dynamic, backend=None, bound=1e-5):
    """Equal outputs; returns how many graphs it took."""
    counter = CompileCounter()
    compiled = torch.compile(network, fullgraph=True, dynamic=dynamic, backend=backend or counter)
    with torch.inference_mode():
        for x in inputs:
            for expected, got in zip(parts(network(x)), parts(compiled(x)), strict=True):
                assert expected.shape == got.shape
                if expected.numel():
                    assert (expected - got).abs().max() <= bound * expected.abs().max()
    return counter.frame_count


@pytest.mark.parametrize("name", FAMILIES)
def test_a_network_of_every_family_compiles_once_for_all_sizes(name):
    network = lively(entry(name).build())
    assert assert_compiles(network, examples(name), dynamic=True) == 1


@pytest.mark.parametrize("name", FAMILIES)
def test_the_deploy_form_compiles_for_one_size(name):
    network = FORMS["engines"](lively(entry(name).build()))
    assert assert_compiles(network, examples(name)[:1], dynamic=False) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", OURS)
def test_every_network_compiles(name):
    assert_compiles_for_one_size_and_all(name, lively(entry(name).build()))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FAMILIES, "espnetv2_s0_5", "espnetv2_ssd300_s0_5"])
def test_folded_networks_compile(name):
    """Of every family one: networks of a family differ in widths alone."""
    assert_compiles_for_one_size_and_all(name, FORMS["engines"](lively(entry(name).build())))


def assert_compiles_for_one_size_and_all(name, network):
    inputs = examples(name)
    assert assert_compiles(network, inputs[:1], dynamic=False) == 1
    graphs = assert_compiles(network, inputs[:2], dynamic=True)
    # a detector's coarsest maps have a single row at small sizes, for which torch makes another
    assert graphs == 1 or (CATALOG[name].task == "detection" and graphs <= 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", RIVALS)
def test_every_baseline_compiles(name):
    if entry(name).extra:
        pytest.importorskip("timm")
        pytest.importorskip("pytorchcv")
    network = lively(entry(name).build(num_classes=10))
    inputs = examples(name)
    assert assert_compiles(network, inputs[:1], dynamic=False) == 1
    assert_compiles(network, inputs[:2], dynamic=True)


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", ["espnetv2_s0_5", "eru_lm_7m"])
def test_inductor_compiles(name, dynamic):
    inputs = examples(name)[: 3 if dynamic else 1]
    network = lively(entry(name).build())
    # inductor's own kernels add in another order
    assert_compiles(network, inputs, dynamic=dynamic, backend="inductor", bound=1e-4)
