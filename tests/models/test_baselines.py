"""Every baseline answers under our contract, at odd sizes too, and costs what it should."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from espnetv2.errors import UserError
from espnetv2.models.any_size import AnySize
from espnetv2.models.baselines import BASELINES
from espnetv2.models.fcn8s import FCN8s

BIG = {
    *("xception", "densenet169", "icnet", "pspnet", "segnet", "sqnet"),
    *("fcn8s", "fcn_resnet50", "deeplab_v3_resnet101"),
}
"""Only the shapes of their answers are computed."""

PARAMETERS = {
    "mobilenet_v1_x0_25": 470_072,
    "mobilenet_v1_x1_0": 4_231_976,
    "mobilenet_v2_x1_0": 3_504_872,
    "shufflenet_v2_x0_5": 1_366_792,
    "shufflenet_v2_x1_0": 2_278_604,
    "shufflenet_v2_x1_5": 3_503_624,
    "shufflenet_v2_x2_0": 7_393_996,
    "igcv3_x1_0": 3_491_688,
    "condensenet74_g4": 4_773_944,
    "condensenet74_g8": 2_935_416,
    "densenet121": 7_978_856,
    "efficientnet_lite0": 4_652_008,
}
"""At 1000 classes, as the libraries that they come from print them."""

MILLIONS = {"segnet": 29.45, "erfnet": 2.06, "fcn8s": 134.3}
"""At 20 classes, from the table of the ESPNetv2 paper."""


def _extra(name):
    if BASELINES[name].extra:
        pytest.importorskip("timm")
        pytest.importorskip("pytorchcv")


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("in_channels", [3, 4])
def test_answers_at_any_size_alike_in_training_and_evaluation(name, in_channels):
    _extra(name)
    baseline = BASELINES[name]
    with torch.device("meta"), torch.no_grad():
        network = baseline.build(num_classes=7, in_channels=in_channels)
        for size in ((64, 96), (65, 97), (32, 33)):
            expected = (2, 7, *size) if baseline.task == "segmentation" else (2, 7)
            image = torch.randn(2, in_channels, *size)
            assert network.eval()(image).shape == expected
            assert network.train()(image).shape == expected


@pytest.mark.parametrize("name", sorted(BASELINES.keys() - BIG))
def test_answers_with_numbers(name):
    _extra(name)
    network = BASELINES[name].build(num_classes=7, in_channels=3).eval()
    with torch.inference_mode():
        logits = network(torch.randn(1, 3, 33, 47))
    assert logits.isfinite().all()
    assert logits.std() > 0


@pytest.mark.parametrize("name", PARAMETERS)
def test_classifiers_have_their_published_size(name):
    _extra(name)
    with torch.device("meta"):
        network = BASELINES[name].build(num_classes=1000)
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", MILLIONS)
def test_segmenters_have_the_size_of_the_papers_table(name):
    _extra(name)
    with torch.device("meta"):
        network = BASELINES[name].build(num_classes=20)
    millions = sum(p.numel() for p in network.parameters()) / 1e6
    assert millions == pytest.approx(MILLIONS[name], rel=3e-3)


def test_every_channel_of_condensenet_reaches_the_next_layer():
    _extra("condensenet74_g8")
    network = BASELINES["condensenet74_g8"].build(num_classes=7)
    choices = {k: v.tolist() for k, v in network.named_buffers() if k.endswith("index")}
    assert len(choices) > 30
    assert all(len(set(choice)) == len(choice) for choice in choices.values())
    assert max(choices["output.index"]) == 2062  # of 2064


def test_rows_say_what_they_need():
    for name, baseline in BASELINES.items():
        assert baseline.extra in (None, "baselines"), name
        assert ("timm" in baseline.note or "pytorchcv" in baseline.note) == bool(baseline.extra)


def test_importing_the_table_imports_neither_torch_nor_the_libraries():
    code = (
        "import sys, espnetv2.models.baselines; "
        "sys.exit(bool({'torch', 'torchvision', 'timm', 'pytorchcv'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorchcv", None)
    monkeypatch.setitem(sys.modules, "pytorchcv.model_provider", None)
    with pytest.raises(UserError, match=r'pip install "espnetv2\[baselines\]"'):
        BASELINES["enet"].build(num_classes=5)


def test_any_size_pads_only_where_needed_and_keeps_pixels_in_place():
    twice = AnySize(nn.AvgPool2d(1), multiple=8)
    image = torch.randn(1, 3, 33, 41)
    assert torch.equal(twice(image), image)

    sizes = []
    spy = nn.Identity()
    spy.register_forward_hook(lambda _module, inputs, _out: sizes.append(inputs[0].shape[-2:]))
    AnySize(spy, multiple=8)(image)
    assert sizes == [(40, 48)]


def test_fcn8s_adds_the_scores_of_three_strides():
    network = FCN8s(num_classes=3).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        whole = network(image)
        for score in (network.score8, network.score16, network.classifier[-1]):
            kept = score.weight.clone()
            score.weight.zero_()
            assert not torch.allclose(network(image), whole)
            score.weight.copy_(kept)
