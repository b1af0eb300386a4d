"""ESPNet v1 has the published sizes and costs and takes pictures of any size."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from close import assert_close
from espnetv2.errors import UserError
from espnetv2.models.backbone import Backbone
from espnetv2.models.espnet import ESPNet, ESPNetBackbone, ESPNetC

CITYSCAPES_224 = {
    (ESPNetC, 3): (187_529, 206.66, 0),
    (ESPNetC, 5): (252_297, 256.84, 0),
    (ESPNetC, 8): (349_449, 332.10, 0),
    (ESPNet, 3): (202_649, 298.93, 26.34),
    (ESPNet, 5): (267_417, 349.10, 26.34),
    (ESPNet, 8): (364_569, 424.37, 26.34),
}
CITYSCAPES_1024 = {
    (ESPNetC, 3): (2159.4, 0),
    (ESPNetC, 5): (2683.7, 0),
    (ESPNetC, 8): (3470.2, 0),
    (ESPNet, 3): (3123.5, 275.3),
    (ESPNet, 5): (3647.8, 275.3),
    (ESPNet, 8): (4434.2, 275.3),
}


def multiply_adds(network, height, width):
    """(of convolutions, of transposed convolutions); nothing is computed, only shapes."""
    counts = {nn.Conv2d: 0, nn.ConvTranspose2d: 0}

    def count(module, inputs, output):
        pixels = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output
        counts[type(module)] += module.weight.numel() * pixels[0, 0].numel()

    network = network.eval().to("meta")
    for module in network.modules():
        if type(module) in counts:
            module.register_forward_hook(count)
    network(torch.zeros(1, 3, height, width, device="meta"))
    return tuple(counts.values())


def _millions(counts, digits):
    return tuple(round(count / 1e6, digits) for count in counts)


@pytest.mark.parametrize(("kind", "q"), CITYSCAPES_224)
def test_parameters_and_multiply_adds_at_224(kind, q):
    parameters, *expected = CITYSCAPES_224[kind, q]
    network = kind(q=q)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert _millions(multiply_adds(network, 224, 224), 2) == tuple(expected)


@pytest.mark.parametrize(("kind", "q"), CITYSCAPES_1024)
def test_multiply_adds_at_1024_by_512(kind, q):
    assert _millions(multiply_adds(kind(q=q), 512, 1024), 1) == CITYSCAPES_1024[kind, q]


def test_counts_of_the_camvid_network():
    network = ESPNet(q=8, num_classes=12, skip="stem+image")
    assert sum(p.numel() for p in network.parameters()) == 354_517
    assert _millions(multiply_adds(network, 224, 224), 2) == (378.25, 9.48)
    assert _millions(multiply_adds(network, 360, 480), 1) == (1302.7, 32.7)


def test_every_norm_uses_the_large_eps():
    norms = [m for m in ESPNet(q=3).modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 16  # 4 alone, 7 in the units of levels 2 and 3, 5 in the decoder
    assert {norm.eps for norm in norms} == {1e-3}


sizes = st.integers(32, 200)


@settings(max_examples=15, deadline=None)
@given(height=sizes, width=sizes, batch=st.sampled_from([1, 3]), skip=st.sampled_from([0, 1]))
@example(height=33, width=37, batch=1, skip=0)
@example(height=34, width=39, batch=3, skip=1)
def test_any_size_works_and_decoded_logits_have_it(height, width, batch, skip):
    network = ESPNet(p=1, q=1, num_classes=6, skip=("stem", "stem+image")[skip]).eval()
    image = torch.randn(batch, 3, height, width)
    with torch.inference_mode():
        assert network(image).shape == (batch, 6, height, width)
        assert network.encoder(image).shape == (batch, 6, -(-height // 8), -(-width // 8))


@settings(max_examples=8, deadline=None)
@given(height=sizes, width=sizes)
def test_backbone_describes_its_outputs(height, width):
    for skip in ("stem", "stem+image"):
        backbone = ESPNetBackbone(p=1, q=1, in_channels=4, skip=skip).eval()
        assert isinstance(backbone, Backbone)
        with torch.inference_mode():
            shapes = [tuple(x.shape) for x in backbone(torch.zeros(1, 4, height, width))]
        assert shapes == [
            (1, channels, -(-height // stride), -(-width // stride))
            for channels, stride in zip(backbone.channels, backbone.strides, strict=True)
        ]


@pytest.mark.parametrize("num_classes", [1, 2, 5, 21])
def test_any_number_of_classes_works_also_in_training(num_classes):
    network = ESPNet(p=1, q=1, num_classes=num_classes, in_channels=1).train()
    network(torch.randn(2, 1, 40, 48)).square().mean().backward()
    dead = [name for name, p in network.named_parameters() if p.grad is None]
    assert dead == []


def test_an_odd_picture_is_answered_like_one_with_zeros_appended():
    network = ESPNet(p=1, q=1, num_classes=5).eval()
    image = torch.randn(1, 3, 63, 95)
    with torch.inference_mode():
        padded = network(nn.functional.pad(image, (0, 1, 0, 1)))
        assert_close("logits", network(image), padded[..., :63, :95])


def test_initial_activations_neither_vanish_nor_explode():
    network = ESPNet(num_classes=20).train()
    with torch.no_grad():
        spread = network(torch.randn(2, 3, 64, 64)).std()
    assert 0.1 < spread < 10


def test_mistakes_are_named():
    with pytest.raises(UserError, match="q=0: each level needs at least one"):
        ESPNetC(q=0)
    with pytest.raises(UserError, match="unknown skip 'image'"):
        ESPNet(skip="image")
