"""The backbone, the classifier and both segmenters."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from close import assert_close
from espnetv2.layers.conv import halve
from espnetv2.models.backbone import Backbone
from espnetv2.models.espnetv2 import ABLATIONS, LAYOUTS, ESPNetv2, ESPNetv2Backbone, Layout
from espnetv2.models.espnetv2_seg import ESPNetv2Seg, espnetv2_seg
from espnetv2.models.espnetv2_seg_arxiv import (
    ESPNetv2SegArxiv,
    enlarge_auxiliary,
    espnetv2_seg_arxiv,
)
from espnetv2.models.shufflenetv1 import ShuffleNetV1Backbone
from espnetv2.models.torchvision_backbones import shufflenet_v2_backbone

SIZES = st.tuples(st.integers(32, 400), st.integers(32, 400))
TINY = Layout((16, 32, 64, 128, 256), 64, units=(0, 1, 1, 1))


def test_backbone_states_its_outputs():
    backbone = ESPNetv2Backbone(LAYOUTS["s0_5"]).eval()
    assert isinstance(backbone, Backbone)
    features = backbone(torch.zeros(1, 3, 97, 131))
    assert tuple(f.shape[1] for f in features) == backbone.channels == (16, 32, 64, 128, 1024)
    assert backbone.strides == (2, 4, 8, 16, 32)
    for feature, stride in zip(features, backbone.strides, strict=True):
        assert feature.shape[-2:] == (-(-97 // stride), -(-131 // stride))


def test_only_the_stages_in_use_are_built():
    short = ESPNetv2Backbone(LAYOUTS["s0_5"], stages=4)
    assert short.final is None
    assert len(short(torch.zeros(1, 3, 64, 64))) == 4


def test_image_is_pooled_once_per_level():
    """A running pyramid gives the numbers of pooling from full size in every unit."""
    backbone = ESPNetv2Backbone(TINY).eval()
    seen = []
    for stage in backbone.stages:
        stage.down.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[1]))
    image = torch.randn(1, 3, 75, 101)
    backbone(image)
    for i in range(3):
        expected = image
        for _ in range(i + 2):
            expected = halve(expected)
        assert torch.equal(expected, seen[i])


def test_level_five_looks_at_the_image_only_in_the_detector():
    """D3."""
    assert ESPNetv2Backbone(TINY).stages[3].down.image is None
    assert ESPNetv2Backbone(TINY, image_at_last=True).stages[3].down.image is not None


def test_strided_units_take_the_limit_of_the_stage_before():
    """D14."""
    backbone = ESPNetv2Backbone(LAYOUTS["s0_5"])
    dilations = [[b.dilation[0] for b in s.down.unit.branches] for s in backbone.stages]
    assert dilations == [[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4], [1, 1, 2, 3]]
    inner = [[b.dilation[0] for b in s.units[0].branches] for s in backbone.stages[1:]]
    assert inner == [[1, 2, 3, 4], [1, 1, 2, 3], [1, 1, 1, 2]]


def test_every_parameter_of_the_classifier_learns():
    network = ESPNetv2(TINY, num_classes=5)
    network(torch.randn(2, 3, 64, 64)).sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []


def test_dropout_probability():
    """D5: 0.2 before the linear layer; the arXiv segmenter's depends on its width."""
    assert ESPNetv2(TINY).dropout.p == 0.2
    assert espnetv2_seg_arxiv("s0_5").classify_2[0].p == 0.1
    assert espnetv2_seg_arxiv("s1_0").classify_2[0].p == 0.2


def test_three_method_contract():
    network = ESPNetv2(TINY, num_classes=7).eval()
    image = torch.randn(2, 3, 64, 96)
    features = network.forward_features(image)
    pooled = network.forward_head(features, pre_logits=True)
    assert pooled.shape == (2, 64)
    assert_close("head", network.classifier(pooled), network(image))
    network.reset_classifier(3)
    assert network(image).shape == (2, 3)
    network.reset_classifier(0)
    assert_close("no classes", network(image), pooled)


@pytest.mark.parametrize("name", ABLATIONS)
def test_ablations_run_and_differ_from_the_paper_network(name):
    network = ESPNetv2(ABLATIONS[name], num_classes=3).eval()
    assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 3)
    assert ABLATIONS[name] not in LAYOUTS.values()


@settings(max_examples=12, deadline=None)
@given(size=SIZES, batch=st.sampled_from([1, 3]))
def test_classifier_takes_any_size(size, batch):
    network = _cached("classifier", lambda: ESPNetv2(LAYOUTS["s0_5"], num_classes=9))
    with torch.inference_mode():
        assert network(torch.randn(batch, 3, *size)).shape == (batch, 9)


@settings(max_examples=12, deadline=None)
@given(size=SIZES, batch=st.sampled_from([1, 3]))
def test_segmenters_take_any_size(size, batch):
    """D16, D17: the official ones stop where sides are not multiples of 16."""
    for name, build in (("seg", espnetv2_seg), ("arxiv", espnetv2_seg_arxiv)):
        network = _cached(name, lambda build=build: build("s0_5", num_classes=5))
        with torch.inference_mode():
            assert network(torch.randn(batch, 3, *size)).shape == (batch, 5, *size)


@pytest.mark.parametrize("size", [(2000, 1333), (33, 1999)])
@pytest.mark.parametrize("build", [espnetv2_seg, espnetv2_seg_arxiv])
def test_large_odd_pictures(build, size):
    network = build("s0_5", num_classes=2).eval()
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, *size)).shape == (1, 2, *size)


def test_auxiliary_logits_come_from_stride_eight_and_double_three_times():
    network = espnetv2_seg_arxiv("s0_5", num_classes=4)
    image = torch.randn(2, 3, 64, 96)
    logits, auxiliary = network.forward_with_auxiliary(image)
    assert logits.shape == (2, 4, 64, 96)
    assert auxiliary.shape == (2, 4, 8, 12)
    large = enlarge_auxiliary(auxiliary, (64, 96))
    expected = auxiliary
    for _ in range(3):
        expected = F.interpolate(expected, scale_factor=2, mode="bilinear", align_corners=True)
    assert_close("auxiliary", large, expected)


@pytest.mark.parametrize("width", [16, 32])
def test_decoder_width_is_an_argument(width):
    """D6: 64, 48, 32 for VOC and Cityscapes, twice that for COCO in the official code."""
    network = espnetv2_seg("s0_5", num_classes=21, base_width=width)
    assert [norm.norm.num_features for norm in network.norms] == [4 * width, 3 * width, 2 * width]


@pytest.mark.parametrize(
    "backbone",
    [
        lambda: shufflenet_v2_backbone(1.0, stages=4),
        lambda: ShuffleNetV1Backbone(3, 0.5),
    ],
)
@pytest.mark.parametrize("segmenter", [ESPNetv2Seg, ESPNetv2SegArxiv])
def test_segmenters_take_other_backbones(segmenter, backbone):
    """Paper Fig. 7b swaps in ShuffleNetV2."""
    network = segmenter(backbone(), num_classes=4).eval()
    assert network(torch.zeros(1, 3, 65, 97)).shape == (1, 4, 65, 97)


def test_a_class_alone_still_builds():
    assert espnetv2_seg("s0_5", num_classes=1).eval()(torch.zeros(1, 3, 32, 32)).shape[1] == 1


_NETWORKS = {}


def _cached(name, build):
    if name not in _NETWORKS:
        _NETWORKS[name] = build().eval()
    return _NETWORKS[name]
