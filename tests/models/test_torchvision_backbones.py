"""MobileNetV2 and ShuffleNetV2 keep the backbone contract and torchvision's function."""

import pytest
import torch
import torchvision

from close import FLOAT32, assert_close
from espnetv2.errors import UserError
from espnetv2.models.backbone import Backbone
from espnetv2.models.torchvision_backbones import (
    SHUFFLENET_V2_CHANNELS,
    mobilenet_v2_backbone,
    shufflenet_v2_backbone,
)

BUILDS = [
    *(pytest.param(shufflenet_v2_backbone, w, id=f"shuffle{w}") for w in SHUFFLENET_V2_CHANNELS),
    *(pytest.param(mobilenet_v2_backbone, w, id=f"mobile{w}") for w in (0.35, 1.0, 1.4)),
]


@pytest.mark.parametrize(("build", "width"), BUILDS)
@pytest.mark.parametrize("stages", [4, 5])
def test_outputs_are_as_described(build, width, stages):
    backbone = build(width, in_channels=5, stages=stages).eval()
    assert isinstance(backbone, Backbone)
    assert backbone.strides == (2, 4, 8, 16, 32)[:stages]
    for height, width_ in ((32, 32), (65, 97), (90, 131)):
        with torch.inference_mode():
            features = backbone(torch.randn(2, 5, height, width_))
        assert [tuple(f.shape) for f in features] == [
            (2, channels, -(-height // stride), -(-width_ // stride))
            for channels, stride in zip(backbone.channels, backbone.strides, strict=True)
        ]


def _mobilenet_stages(network, image):
    """Every output just before the next halving."""
    sizes = []
    for layer in network.features[:18]:
        image = layer(image)
        sizes.append(image)
    return [
        x
        for x, y in zip(sizes, [*sizes[1:], image[..., :1]], strict=True)
        if x.shape[2:] != y.shape[2:]
    ]


def _shufflenet_stages(network, image):
    parts = (network.conv1, network.maxpool, network.stage2, network.stage3, network.stage4)
    return [image := part(image) for part in parts]


@pytest.mark.parametrize(
    ("build", "name", "stages"),
    [
        (mobilenet_v2_backbone, "mobilenet_v2", _mobilenet_stages),
        (shufflenet_v2_backbone, "shufflenet_v2_x1_0", _shufflenet_stages),
    ],
)
def test_computes_what_torchvision_computes(build, name, stages):
    backbone = build().eval()
    whole = torchvision.models.get_model(name, weights=None).eval()
    values = list(backbone.state_dict().values())
    names = list(whole.state_dict())[: len(values)]
    whole.load_state_dict(dict(zip(names, values, strict=True)), strict=False)
    image = torch.randn(2, 3, 65, 97)
    with torch.inference_mode():
        for ours, theirs in zip(backbone(image), stages(whole, image), strict=True):
            assert_close(f"{ours.shape[1]} channels", ours, theirs, FLOAT32)


def test_fewer_stages_build_fewer_parameters():
    four, five = (
        sum(p.numel() for p in shufflenet_v2_backbone(stages=n).parameters()) for n in (4, 5)
    )
    assert four < five / 2


def test_mistakes_are_named():
    with pytest.raises(UserError, match=r"no ShuffleNetV2 of width 0\.75; choose from 0\.5"):
        shufflenet_v2_backbone(0.75)
    with pytest.raises(UserError, match="stages=6: a backbone has 1 to 5"):
        mobilenet_v2_backbone(stages=6)
    with pytest.raises(UserError, match="width 0: it must be positive"):
        mobilenet_v2_backbone(0)
