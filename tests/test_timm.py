"""The classifiers in timm's registry, and in torch.hub's form."""

import importlib.util
import pathlib

import pytest
import torch
from PIL import Image

timm = pytest.importorskip("timm")

import espnetv2.timm  # noqa: E402
from close import assert_close  # noqa: E402
from espnetv2.errors import UserError  # noqa: E402


def test_registered_names_build_with_timms_arguments():
    network = timm.create_model("espnetv2_s0_5", num_classes=7, in_chans=1).eval()
    assert network(torch.zeros(2, 1, 64, 64)).shape == (2, 7)
    assert "espnetv2_s2_0" in timm.list_models("espnetv2*")


def test_features_only():
    network = timm.create_model("espnetv2_s1_0", features_only=True).eval()
    assert network.feature_info.channels() == [32, 64, 128, 256, 1024]
    assert network.feature_info.reduction() == [2, 4, 8, 16, 32]
    shapes = [tuple(f.shape) for f in network(torch.zeros(1, 3, 64, 96))]
    assert shapes[0] == (1, 32, 32, 48)
    some = timm.create_model("shufflenetv1_g3_x1_0", features_only=True, out_indices=(1, 3)).eval()
    assert len(some(torch.zeros(1, 3, 64, 64))) == 2
    assert len(some.feature_info.channels()) == 2


def test_timms_own_cache_folder_is_refused():
    with pytest.raises(UserError, match="ESPNETV2_CACHE"):
        timm.create_model("espnetv2_s0_5", cache_dir="x")


def test_a_tag_chooses_the_weights_and_their_preprocessing():
    network = timm.create_model("espnetv2_s0_5.imagenette", pretrained=True).eval()
    ours = espnetv2.create_model("espnetv2_s0_5.imagenette").eval()
    image = torch.randn(1, 3, 64, 64)
    assert torch.equal(network(image), ours(image))
    config = timm.data.resolve_model_data_config(network)
    assert (config["input_size"], config["interpolation"]) == ((3, 128, 128), "bilinear")
    picture = Image.new("RGB", (200, 150), "teal").effect_spread(20)
    spec = espnetv2.load("espnetv2_s0_5.imagenette").preprocessing
    assert_close("input", timm.data.create_transform(**config)(picture), spec(picture))
    assert timm.list_pretrained("espnetv2_s0_5*")[-1] == "espnetv2_s0_5.imagenette"


@pytest.mark.parametrize("name", ["espnetv2_s0_5", "shufflenetv1_g1_x0_25"])
def test_networks_without_weights_know_their_preprocessing(name):
    network = timm.create_model(name)
    config = timm.data.resolve_model_data_config(network)
    assert (config["input_size"], config["interpolation"]) == ((3, 224, 224), "bilinear")
    cfg = network.default_cfg
    assert network.get_submodule(cfg["classifier"]).out_features == cfg["num_classes"]
    assert network.get_submodule(cfg["classifier"]).in_features == network.num_features
    assert network.get_submodule(cfg["first_conv"]).in_channels == 3


@pytest.mark.parametrize(
    ("name", "words"),
    [("espnetv2_s0_5.imagenet", "imagenette"), ("espnetv2_s1_75.imagenet", "espnetv2_s1_75")],
)
def test_an_unknown_tag_is_refused(name, words):
    with pytest.raises(UserError, match=f"unknown weights.*{words}"):
        timm.create_model(name)


def test_drop_rate():
    assert timm.create_model("espnetv2_s0_5", drop_rate=0.5).dropout.p == 0.5
    timm.create_model("shufflenetv1_g1_x0_25", drop_rate=0.0)
    with pytest.raises(UserError, match="no dropout"):
        timm.create_model("shufflenetv1_g1_x0_25", drop_rate=0.5)


def test_hubconf():
    path = pathlib.Path(__file__).resolve().parents[1] / "hubconf.py"
    spec = importlib.util.spec_from_file_location("hubconf", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.espnetv2_s0_5(num_classes=4).num_classes == 4
    network = torch.hub.load(str(path.parent), "espnet_c_p2_q3", source="local", num_classes=3)
    assert network.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 3, 8, 8)
