"""The detector: equal to the official one, any size, counts that fit the priors."""

import numpy as np
import pytest
import torch
from torch import nn

from close import SCORES, assert_close, assert_within
from espnetv2.errors import UserError
from espnetv2.models.espnetv2 import LAYOUTS, ESPNetv2Backbone, Layout
from espnetv2.models.espnetv2_ssd import SSD, RawDetections, espnetv2_ssd
from espnetv2.tasks.detect import decode, multibox_loss, priors
from espnetv2.tasks.multibox import iou
from official_ssd import filled_ssd, official_ssd300, picture

IDLE_SLOPES = 992  # the official strided units carry activations that are never called (D3)


@pytest.mark.parametrize(("num_classes", "official"), [(21, 4_750_878), (81, 5_812_878)])
def test_parameters_are_the_official_ones_without_the_idle(num_classes, official):
    network = espnetv2_ssd("s2_0", num_classes=num_classes)
    assert sum(p.numel() for p in network.parameters()) == official - IDLE_SLOPES


@pytest.mark.parametrize(
    ("num_classes", "side", "millions"),
    [(21, 300, 913.44), (21, 512, 2520.07), (81, 300, 1164.62), (81, 512, 3217.58)],
)
def test_multiply_adds_are_the_official_ones(num_classes, side, millions):
    with torch.device("meta"):
        network = espnetv2_ssd("s2_0", num_classes=num_classes).eval()
        total = _multiply_adds(network, torch.empty(1, 3, side, side))
    assert total / 1e6 == pytest.approx(millions, abs=0.005)


def _multiply_adds(network, image):
    total = 0

    def count(module, _, out):
        nonlocal total
        total += out.numel() * module.weight[0].numel()

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    network(image)
    return total


@pytest.mark.data
def test_outputs_equal_the_official_ones(shared):
    stored, raw = official_ssd300(shared)
    step = int(stored["sub_stride"])
    assert_within("scores", raw.scores[0, ::step], stored["conf_sub"], SCORES)
    assert_within("offsets", raw.offsets[0, ::step], stored["loc_sub"], SCORES)


@pytest.mark.data
def test_every_stage_equals_the_official_one(shared):
    stored = np.load(shared / "parity" / "espnetv2_ssd300_voc_s_2.0_crcfill.npz")
    network, image = filled_ssd(shared), picture(stored)
    assert_within("input", image[0, :, ::37, ::37], stored["input_check"], SCORES)
    backbone = network.backbone
    watched = {
        "base_l1": backbone.stem,
        "base_l2": backbone.stages[0],
        "base_l3": backbone.stages[1],
        "base_l4": backbone.stages[2],
        "base_l5_0": backbone.stages[3].down,
        "base_l5": backbone.final,
        "extra6": network.extras[0],
        "extra7": network.extras[1],
        "extra8": network.extras[2],
        "bu_5x5": network.pyramid[0],
        "bu_10x10": network.pyramid[1],
        "bu_19x19": network.pyramid[2],
        "bu_38x38": network.pyramid[3],
    }
    names = {key[6:-6] for key in stored if key.startswith("stage_") and key.endswith("_stats")}
    assert names == set(watched)
    seen = _outputs(network, watched, image)
    for name in watched:
        out = seen[name]
        mean, std, largest, *shape = stored[f"stage_{name}_stats"]
        assert list(out.shape[1:]) == [int(side) for side in shape], name
        step = max(1, out.shape[-1] // 16)
        assert_within(
            name, out[0, :8, ::step, ::step], stored[f"stage_{name}_sample"], SCORES * largest
        )
        assert_close(
            name, [out.mean(), out.std(correction=0), out.abs().max()], [mean, std, largest], 1e-4
        )


def _outputs(network, watched, image):
    seen = {}
    hooks = [
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
        for name, module in watched.items()
    ]
    with torch.no_grad():
        network(image)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("size", [(32, 32), (33, 57), (64, 45), (101, 199), (128, 200)])
@pytest.mark.parametrize("batch", [1, 3])
def test_any_size_gives_one_output_per_prior(size, batch):
    network = _tiny(num_classes=4).eval()
    with torch.no_grad():
        raw = network(torch.randn(batch, 3, *size))
    count = len(priors(size))
    assert raw.scores.shape == (batch, count, 4)
    assert raw.offsets.shape == (batch, count, 4)
    assert raw.scores.isfinite().all()


def test_training_and_evaluation_give_the_same_type():
    network = _tiny(num_classes=3, in_channels=1)
    image = torch.randn(2, 1, 64, 64)
    assert isinstance(network.train()(image), RawDetections)
    assert isinstance(network.eval()(image), RawDetections)


def test_every_parameter_learns():
    network = _tiny(num_classes=3)
    raw = network(torch.randn(2, 3, 64, 64))
    (raw.scores.square().sum() + raw.offsets.square().sum()).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_convolutions_start_uniform_after_xavier_in_the_whole_network():
    network = espnetv2_ssd("s0_5", num_classes=3)
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            reach = module.weight[0, 0].numel()
            fans = (module.weight.shape[0] + module.weight.shape[1]) * reach
            bound = (6 / fans) ** 0.5
            assert 0.5 * bound < module.weight.abs().max() <= bound, name


def test_a_backbone_keeps_the_weights_it_comes_with():
    backbone = ESPNetv2Backbone(LAYOUTS["s0_5"], image_at_last=True)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    after = SSD(backbone, num_classes=3).backbone.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_a_backbone_without_coarse_stages_is_refused():
    with pytest.raises(UserError, match="are 2, 4, 8, 16"):
        SSD(ESPNetv2Backbone(LAYOUTS["s0_5"], stages=4))


def test_an_unknown_size_is_named():
    with pytest.raises(UserError, match=r"unknown size 's2'.*s2_0"):
        espnetv2_ssd("s2")


@pytest.mark.slow
def test_a_tiny_detector_learns_the_boxes_of_one_picture():
    torch.set_num_threads(1)  # maps this small gain nothing, and two threads on a busy core wait
    size = (96, 96)
    grid = priors(size)
    boxes = torch.tensor([[0.1, 0.1, 0.5, 0.4], [0.5, 0.45, 0.9, 0.95]])
    labels = torch.tensor([1, 2])
    image = torch.zeros(1, 3, *size)
    image[0, 0, 10:38, 10:48] = 2.0
    image[0, 1, 43:91, 48:86] = 2.0
    images, targets = image.repeat(2, 1, 1, 1), [(boxes, labels)] * 2
    network = _tiny(num_classes=3)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(80):
        loss = multibox_loss(network(images), targets, grid)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    assert loss.total < 0.5
    with torch.no_grad():
        raw = network(images)  # norms still use the batch, as in training
    found = decode(raw, grid, [size] * 2, ("red", "green"))[0]
    for box, label in zip(boxes * 96, (0, 1), strict=True):
        best = torch.from_numpy(found.boxes[found.labels == label][:1])
        assert iou(best, box[None]) > 0.8


def _tiny(*, num_classes, in_channels=3):
    layout = Layout((16, 32, 64, 128, 256), 64, units=(0, 1, 1, 1))
    backbone = ESPNetv2Backbone(layout, in_channels=in_channels, image_at_last=True)
    return SSD(backbone, num_classes=num_classes, extra_channels=(32, 32, 32))
