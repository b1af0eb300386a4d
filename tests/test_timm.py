"""The classifiers in timm's registry, and in torch.hub's form."""

import importlib.util
import pathlib

import pytest
import torch

timm = pytest.importorskip("timm")

import espnetv2.timm  # noqa: E402, F401
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


def test_hubconf():
    path = pathlib.Path(__file__).resolve().parents[1] / "hubconf.py"
    spec = importlib.util.spec_from_file_location("hubconf", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.espnetv2_s0_5(num_classes=4).num_classes == 4
    network = torch.hub.load(str(path.parent), "espnet_c_p2_q3", source="local", num_classes=3)
    assert network.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 3, 8, 8)
