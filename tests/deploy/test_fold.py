"""The deploy form says what the train form says, for every network and every kind of weights."""

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from deploy.lively import lively, parts
from espnetv2.data.preprocess import CONVENTIONS
from espnetv2.deploy.fold import fold
from espnetv2.deploy.forms import Affine, TwoSlopes, WindowMeans
from espnetv2.layers.eesp import EESP
from espnetv2.models.catalog import CATALOG, entry
from espnetv2.weights.load import load_network

NAMES = [
    "espnetv2_s0_5",
    "espnetv2_s1_25",
    "espnetv2_s1_0_no_fusion",
    "espnetv2_s1_0_dilated",
    "espnetv2_s1_0_plain_reduction",
    "espnetv2_seg_s0_5",
    "espnetv2_seg_arxiv_s0_5",
    "espnetv2_ssd300_s0_5",
    "espnet_c_p2_q3",
    "espnet_p2_q3",
    "shufflenetv1_g3_x0_5",
    "eru_lm_7m",
]
FORMS = [{}, {"activation": "relu"}, {"activation": "relu", "dense_below": 16}]


def assert_equal_outputs(network, folded, x, bound=1e-5):
    with torch.inference_mode():
        pairs = list(zip(parts(network(x)), parts(folded(x)), strict=True))
    assert pairs
    for old, new in pairs:
        assert old.shape == new.shape
        if old.numel():
            assert (old - new).abs().max() <= bound * old.abs().max()


@pytest.mark.parametrize("options", FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_the_deploy_form_equals_the_train_form(name, options):
    torch.manual_seed(1)
    network = lively(entry(name).build())
    before = {k: v.clone() for k, v in network.state_dict().items()}
    folded = fold(network, **options)
    x = torch.randint(0, 99, (3, 2)) if name.startswith("eru") else torch.randn(2, 3, 97, 130)
    assert_equal_outputs(network, folded, x)
    kinds = {type(module) for module in folded.modules()}
    assert not any(issubclass(kind, _BatchNorm | nn.PReLU | nn.Dropout) for kind in kinds)
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    for key, value in network.state_dict().items():  # the given network is left alone
        assert torch.equal(value, before[key])


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n, row in CATALOG.items() if not row.baseline])
def test_every_network_of_the_catalog_folds(name):
    network = lively(entry(name).build())
    x = torch.randint(0, 99, (2, 1)) if name.startswith("eru") else torch.randn(1, 3, 64, 96)
    assert_equal_outputs(network, fold(network, activation="relu", dense_below=16), x)


@pytest.mark.data
@pytest.mark.parametrize(
    "name",
    [
        "espnetv2_seg_s0_5.edgenets_voc_256",
        "espnetv2_seg_s1_0.edgenets_city_512",
        "espnetv2_seg_s2_0.edgenets_city_512",
        "espnetv2_seg_arxiv_s1_0.espnetv2_city_1024",
        "espnet_c_p2_q8.cityscapes",
        "espnet_p2_q8.camvid",
    ],
)
def test_released_weights_fold(name, shared, monkeypatch):
    monkeypatch.setenv("ESPNETV2_WEIGHTS", str(shared / "weights"))
    network = load_network(name).network
    torch.manual_seed(3)
    x = torch.randn(1, 3, 160, 192)
    for options in FORMS:
        assert_equal_outputs(network, fold(network, **options), x)


@pytest.mark.parametrize("name", ["espnetv2_seg_s0_5.camvid", "espnetv2_s0_5.imagenette"])
def test_our_weights_fold_without_a_norm_left_in_an_eesp_unit(name):
    folded = fold(load_network(name).network)
    units = [module for module in folded.modules() if isinstance(module, EESP)]
    assert units
    assert not any(isinstance(module, Affine) for unit in units for module in unit.modules())


def test_the_fused_norm_is_folded_for_scales_and_slopes_of_any_sign():
    torch.manual_seed(5)
    unit = EESP(16, 16)
    lively(unit)
    norm, act = unit.fuse.norm, unit.fuse.act
    norm.weight.data = torch.tensor([1.5, -1.5, 0.2, -0.2] * 4)
    act.weight.data = torch.tensor([2.5, -1.7, 0.0, 0.0, 0.01, -0.01, 1.0, -1.0] * 2)
    folded = fold(unit)
    assert isinstance(folded.fuse.norm, nn.Identity)
    assert isinstance(folded.fuse.act, TwoSlopes)
    assert_equal_outputs(unit, folded, torch.randn(2, 16, 20, 20))


@pytest.mark.parametrize("weight", [0.0, 1e-12])
def test_a_norm_that_hardly_listens_stays_as_it_is(weight):
    torch.manual_seed(5)
    unit = lively(EESP(16, 16))
    unit.fuse.norm.weight.data[3] = weight
    folded = fold(unit)
    assert isinstance(folded.fuse.norm, Affine)
    assert_equal_outputs(unit, folded, torch.randn(2, 16, 20, 20))


@pytest.mark.parametrize("name", sorted(CONVENTIONS))
def test_the_preprocessing_goes_into_the_graph(name):
    network = lively(entry("espnetv2_s0_5").build(num_classes=7))
    spec = CONVENTIONS[name]
    pixels = torch.randint(0, 256, (2, 3, 64, 48), dtype=torch.uint8)
    folded = fold(network, preprocessing=spec)
    with torch.inference_mode():
        outside = network(torch.stack([spec.normalize(one) for one in pixels]) / spec.divisor)
        inside = folded(pixels)
    assert (outside - inside).abs().max() <= 1e-5 * outside.abs().max()


@pytest.mark.parametrize(
    ("size", "to"),
    [((20, 30), (10, 15)), ((15, 24), (10, 16)), ((41, 7), (5, 5)), ((3, 2), (5, 5))],
)
def test_window_means_are_adaptive_pooling(size, to):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    expected = torch.nn.functional.adaptive_avg_pool2d(x, to)
    assert (WindowMeans(0.1)(x, to) - expected).abs().max() < 1e-12


def test_fold_keeps_half_precision():
    folded = fold(lively(entry("espnetv2_s0_5").build()).half())
    assert {p.dtype for p in folded.parameters()} == {torch.float16}
