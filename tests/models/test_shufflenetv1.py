import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from torch import nn

from close import FLOAT32, assert_close
from espnetv2.errors import UserError
from espnetv2.models.backbone import Backbone
from espnetv2.models.shufflenetv1 import (
    STAGE_CHANNELS,
    STEM_CHANNELS,
    ShuffleNetV1,
    ShuffleNetV1Backbone,
    layout,
    shufflenetv1,
)

# groups, width, parameters, multiply-adds of the convolutions at 224; counted on pytorchcv 0.0.74
COUNTS = [
    (1, 1.0, 1_531_936, 142_502_976),
    (2, 1.0, 1_733_848, 140_036_512),
    (3, 1.0, 1_865_728, 136_500_672),
    (4, 1.0, 1_968_344, 133_251_776),
    (8, 1.0, 2_434_768, 136_829_952),
    (1, 0.75, 975_214, 82_110_672),
    (3, 0.75, 1_238_266, 79_020_144),
    (1, 0.5, 534_484, 38_229_408),
    (3, 0.5, 718_324, 37_109_856),
    (1, 0.25, 209_746, 10_859_184),
    (3, 0.25, 305_902, 10_769_808),
]
ALL = [(groups, width) for groups in STAGE_CHANNELS for width in STEM_CHANNELS]
PYTORCHCV_WIDTHS = {0.25: "wd4", 0.5: "wd2", 0.75: "w3d4", 1.0: "w1"}
UNIT_KEYS = [
    ("compress_conv1", "reduce.conv"),
    ("compress_bn1", "reduce.norm"),
    ("dw_conv2", "depthwise.conv"),
    ("dw_bn2", "depthwise.norm"),
    ("expand_conv3", "expand.conv"),
    ("expand_bn3", "expand.norm"),
]


def conv_macs(network, size=224):
    counted = []

    def count(module, _, out):
        kernel = module.kernel_size[0] * module.kernel_size[1]
        counted.append(out[0].numel() * module.in_channels // module.groups * kernel)

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, nn.Conv2d)]
    network.to("meta").eval()(torch.zeros(1, 3, size, size, device="meta"))
    for hook in hooks:
        hook.remove()
    return sum(counted)


def parameters(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(("groups", "width", "count", "macs"), COUNTS)
def test_counts_are_those_of_the_independent_implementation(groups, width, count, macs):
    network = shufflenetv1(groups, width)
    assert (parameters(network), conv_macs(network)) == (count, macs)


@pytest.mark.parametrize(
    ("width", "squeeze_excitation", "millions"),
    [(1.5, False, 292), (2.0, False, 524), (2.0, True, 527)],
)
def test_wide_networks_cost_what_the_paper_prints(width, squeeze_excitation, millions):
    network = shufflenetv1(3, width, squeeze_excitation=squeeze_excitation)
    linear = network.classifier.weight.numel()
    assert abs((conv_macs(network) + linear) / 1e6 - millions) < 1


def test_squeeze_excitation_adds_two_small_maps_per_unit():
    plain, excited = shufflenetv1(3, 1.0), shufflenetv1(3, 1.0, squeeze_excitation=True)
    made = [240 - 24, *[240] * 3, 480 - 240, *[480] * 7, 960 - 480, *[960] * 3]
    added = sum(2 * c * (c // 16) + c + c // 16 for c in made)
    assert parameters(excited) - parameters(plain) == added


def random_reference(groups, width):
    provider = pytest.importorskip("pytorchcv.model_provider")
    theirs = provider.get_model(f"shufflenet_g{groups}_{PYTORCHCV_WIDTHS[width]}").eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return theirs


def to_ours(state):
    pairs = [
        ("features.init_block.conv", "backbone.stem.conv"),
        ("features.init_block.bn", "backbone.stem.norm"),
        ("output", "classifier"),
    ]
    for stage, repeats in enumerate((4, 8, 4)):
        for unit in range(repeats):
            pairs += [
                (
                    f"features.stage{stage + 1}.unit{unit + 1}.{a}",
                    f"backbone.stages.{stage}.{unit}.{b}",
                )
                for a, b in UNIT_KEYS
            ]
    names = dict(pairs)
    modules = {key: key.rpartition(".") for key in state}
    return {f"{names[module]}.{leaf}": state[key] for key, (module, _, leaf) in modules.items()}


@pytest.mark.parametrize(
    ("groups", "width"),
    [(g, 1.0) for g in STAGE_CHANNELS] + [(g, w) for g in (1, 3) for w in (0.25, 0.5, 0.75)],
)
def test_logits_equal_pytorchcv_with_the_same_weights(groups, width):
    theirs = random_reference(groups, width)
    ours = shufflenetv1(groups, width).eval()
    ours.load_state_dict(to_ours(theirs.state_dict()))
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert_close("logits", ours(image), theirs(image), FLOAT32)


@pytest.mark.parametrize(("groups", "width"), ALL)
def test_every_group_and_width_builds_with_the_channels_of_the_paper(groups, width):
    with torch.device("meta"):
        network = shufflenetv1(groups, width)
    first = int(STAGE_CHANNELS[groups] * width)
    assert network.backbone.channels[2:] == (first, 2 * first, 4 * first)
    assert network.backbone.channels[0] == layout(groups, width).stem


@hypothesis.settings(max_examples=10, deadline=None)
@hypothesis.given(
    height=st.integers(32, 200), width=st.integers(32, 200), batch=st.sampled_from([1, 3])
)
def test_any_size_gives_features_of_the_stated_channels_and_strides(height, width, batch):
    backbone = ShuffleNetV1Backbone(2, 0.25).eval()
    with torch.no_grad():
        features = backbone(torch.zeros(batch, 3, height, width))
    expected = [
        (batch, channels, -(-height // stride), -(-width // stride))
        for channels, stride in zip(backbone.channels, backbone.strides, strict=True)
    ]
    assert [tuple(f.shape) for f in features] == expected
    assert backbone.strides == (2, 4, 8, 16, 32)


@pytest.mark.parametrize("stages", [1, 2, 3, 4, 5])
def test_fewer_stages_build_less_and_give_the_same_features(stages):
    whole, part = ShuffleNetV1Backbone(3, 0.25), ShuffleNetV1Backbone(3, 0.25, stages=stages)
    assert isinstance(part, Backbone)
    kept = part.state_dict().keys()
    part.load_state_dict({k: v for k, v in whole.state_dict().items() if k in kept})
    image = torch.randn(1, 3, 48, 64)
    expected = whole.eval()(image)[:stages]
    actual = part.eval()(image)
    assert len(actual) == len(part.channels) == stages
    assert len(part.stages) == max(stages - 2, 0)
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


def test_without_shuffle_the_same_weights_answer_differently():
    shuffled = shufflenetv1(3, 0.25).eval()
    plain = shufflenetv1(3, 0.25, shuffle=False).eval()
    plain.load_state_dict(shuffled.state_dict())
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected, actual = shuffled.forward_features(image), plain.forward_features(image)
    error = (expected - actual).pow(2).mean().sqrt() / expected.pow(2).mean().sqrt()
    assert error > 0.1


def test_one_group_needs_no_shuffle():
    shuffled, plain = shufflenetv1(1, 0.25).eval(), shufflenetv1(1, 0.25, shuffle=False).eval()
    plain.load_state_dict(shuffled.state_dict())
    image = torch.randn(1, 3, 64, 64)
    assert torch.equal(shuffled(image), plain(image))


def test_only_the_very_first_convolution_of_the_stages_is_not_grouped():
    groups = [
        unit.reduce.conv.groups for stage in shufflenetv1(4, 0.5).backbone.stages for unit in stage
    ]
    assert groups == [1] + [4] * 15


def test_classifier_can_be_replaced_and_left_out():
    network = shufflenetv1(3, 0.25, num_classes=7, in_channels=1).eval()
    image = torch.randn(3, 1, 40, 33)
    assert network(image).shape == (3, 7)
    assert network.get_classifier() is network.classifier
    network.reset_classifier(2)
    assert network(image).shape == (3, 2)
    features = network.forward_features(image)
    averages = network.forward_head(features, pre_logits=True)
    assert torch.equal(averages, features.mean((2, 3)))
    network.reset_classifier(0)
    assert torch.equal(network(image), averages)


def test_every_parameter_learns():
    network = shufflenetv1(3, 0.25, num_classes=5, squeeze_excitation=True)
    network(torch.randn(4, 3, 64, 64)).square().sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(
    ("groups", "width", "message"),
    [(5, 1.0, "groups=5; choose from 1, 2, 3, 4, 8"), (3, 0.3, "width=0.3; choose from 0.25, 0.5")],
)
def test_unpublished_sizes_are_refused_with_the_choices(groups, width, message):
    with pytest.raises(UserError, match=message):
        shufflenetv1(groups, width)


def test_stages_out_of_range_are_refused():
    with pytest.raises(UserError, match="stages 1 to 5"):
        ShuffleNetV1Backbone(3, 1.0, stages=6)


def test_builder_returns_the_classifier_class():
    assert isinstance(shufflenetv1(3, 0.25), ShuffleNetV1)
