"""torch.export takes every network as it is, with sizes fixed or free."""

import math

import pytest
import torch
from torch.export import Dim, export

from deploy.lively import lively, parts
from espnetv2.deploy.fold import fold
from espnetv2.layers.eru import ERUState
from espnetv2.layers.pyramid_pool import _ratio, _scaled
from espnetv2.models.catalog import CATALOG, entry
from espnetv2.models.eru_lm import ERULanguageModel, Layout

# torch's own, when it traces a loop over parameters that learn
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")

FAMILIES = [
    "espnetv2_s0_5",
    "espnetv2_seg_s0_5",
    "espnetv2_seg_arxiv_s0_5",
    "espnet_c_p2_q3",
    "espnet_p2_q3",
    "shufflenetv1_g3_x0_5",
    "eru_lm_7m",
]
"""Without the detector, which takes long; the slow tests hold it."""
OURS = [name for name, row in CATALOG.items() if not row.baseline]
RIVALS = [name for name, row in CATALOG.items() if row.baseline]
LARGE = {"icnet", "pspnet", "fcn8s", "fcn_resnet50", "deeplab_v3_resnet101"}
"""Too large to be run at several sizes here; one of them is small enough."""

FORMS = {
    "train": lambda network: network,
    "deploy": fold,
    "engines": lambda network: fold(network, activation="relu", dense_below=16),
}


def sides(name):
    """The smallest side, what is traced, and what is run."""
    if CATALOG[name].task == "language":
        return 1, (6, 3), [(1, 1), (35, 2), (7, 5)]
    if CATALOG[name].task == "detection" or "_arxiv_" in name:
        # torch guards maps of a single row, and up to 128 pixels the one at stride 128 is such
        return 129, (160, 288), [(129, 131), (300, 301)]
    return 64, (96, 160), [(64, 64), (97, 131), (225, 150)]


def example(name, size, *, batch=2):
    torch.manual_seed(7)
    if CATALOG[name].task == "language":
        return torch.randint(0, 99, size)
    return torch.randn(batch, 3, *size)


def free(name):
    """A range for every dimension that a user chooses."""
    if CATALOG[name].task == "language":
        return {0: Dim("words", min=1, max=512), 1: Dim("batch", min=1, max=64)}
    least = sides(name)[0]
    return {
        0: Dim("batch", min=1, max=64),
        2: Dim("height", min=least, max=2048),
        3: Dim("width", min=least, max=2048),
    }


def ranges(program):
    return sorted((bound.lower, bound.upper) for bound in program.range_constraints.values())


def assert_says_the_same(network, program, x):
    with torch.inference_mode():
        pairs = zip(parts(network(x)), parts(program(x)), strict=True)
        for expected, got in pairs:
            assert expected.shape == got.shape
            if expected.numel():
                assert (expected - got).abs().max() <= 1e-5 * expected.abs().max()


def assert_exports(name, network, *, sizes=None):
    """Static, and dynamic at sizes and batches that were not traced."""
    _, traced, others = sides(name)
    x = example(name, traced)
    assert_says_the_same(network, export(network, (x,)).module(), x)
    program = export(network, (x,), dynamic_shapes=(free(name),))
    chosen = sorted((dim.min, dim.max) for dim in free(name).values())
    assert [r for r in ranges(program) if r in chosen] == chosen  # nothing was narrowed
    run = program.module()
    for batch, size in enumerate(others if sizes is None else others[:sizes], start=1):
        assert_says_the_same(network, run, example(name, size, batch=batch))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_network_of_every_family_exports(name):
    assert_exports(name, lively(entry(name).build()))


@pytest.mark.parametrize("name", ["espnetv2_seg_s0_5", "espnet_p2_q3", "eru_lm_7m"])
def test_the_deploy_form_exports(name):
    assert_exports(name, fold(lively(entry(name).build())))


@pytest.mark.slow
@pytest.mark.parametrize("name", OURS)
def test_every_network_exports(name):
    assert_exports(name, lively(entry(name).build()), sizes=2)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["deploy", "engines"])
@pytest.mark.parametrize("name", [*FAMILIES, "espnetv2_ssd300_s0_5"])
def test_folded_networks_export(name, form):
    """Of every family one: networks of a family differ in widths alone."""
    assert_exports(name, FORMS[form](lively(entry(name).build())), sizes=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", RIVALS)
def test_every_baseline_exports(name):
    if entry(name).extra:
        pytest.importorskip("timm")
        pytest.importorskip("pytorchcv")
    network = lively(entry(name).build(num_classes=10))
    assert_exports(name, network, sizes=0 if name in LARGE else 2)


def test_the_range_is_found_without_being_asked_for():
    network = lively(entry("espnet_p2_q3").build())
    free_sides = ({0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO},)
    x = example("espnet_p2_q3", (96, 160))
    program = export(network, (x,), dynamic_shapes=free_sides)
    other = example("espnet_p2_q3", (333, 65), batch=1)
    assert_says_the_same(network, program.module(), other)


def test_a_language_model_over_time_exports():
    layout = Layout(width=16, embedding=16, layers=2, over_time=True)
    network = lively(ERULanguageModel(layout, vocabulary=99))
    program = export(network, (example("eru_lm_7m", (6, 3)),), dynamic_shapes=(free("eru_lm_7m"),))
    for size in [(1, 1), (20, 2)]:
        assert_says_the_same(network, program.module(), example("eru_lm_7m", size))


def test_a_language_model_exports_with_its_state():
    network = lively(entry("eru_lm_7m").build(num_classes=99))
    words, batch = Dim("words", min=1, max=512), Dim("batch", min=1, max=64)
    layer = ERUState({0: batch}, {0: batch}, {1: batch})
    x = example("eru_lm_7m", (6, 3))
    state = network(x)[1]
    shapes = ({0: words, 1: batch}, (layer,) * 3)
    program = export(network, (x, state), dynamic_shapes=shapes).module()
    other = example("eru_lm_7m", (9, 2))
    state = network(other)[1]
    with torch.inference_mode():
        for expected, got in zip(
            parts(network(other, state)), parts(program(other, state)), strict=True
        ):
            assert torch.allclose(expected, got, atol=1e-6)


@pytest.mark.parametrize("scale", [2.0, 1.5, 1.0, 0.5, 0.25, 0.1])
def test_pyramid_sizes_in_whole_numbers_are_those_of_the_official_code(scale):
    for side in range(1, 5000):
        assert _scaled(side, *_ratio(scale)) == max(5, math.ceil(side * scale))
