import pytest
import torch
from torch import nn

from close import FLOAT64, assert_close
from espnetv2.layers.shuffle import ShuffleUnit, SqueezeExcitation, channel_shuffle, round_up


@pytest.mark.parametrize("groups", [1, 2, 3, 4, 6, 12])
def test_shuffle_deals_one_channel_of_each_group_in_turn(groups):
    x = torch.randn(2, 12, 3, 5)
    share = 12 // groups
    dealt = [x[:, group * share + i] for i in range(share) for group in range(groups)]
    assert torch.equal(channel_shuffle(x, groups), torch.stack(dealt, dim=1))


@pytest.mark.parametrize("groups", [2, 3, 4])
def test_shuffle_with_the_other_factor_undoes_it(groups):
    x = torch.randn(1, 12, 2, 2)
    assert torch.equal(channel_shuffle(channel_shuffle(x, groups), 12 // groups), x)


def test_without_shuffle_a_unit_keeps_its_groups_apart_and_with_it_they_talk():
    reached = {}
    for shuffle in (True, False):
        unit = ShuffleUnit(48, 48, groups=3, shuffle=shuffle).eval()
        x = torch.randn(1, 48, 4, 4, requires_grad=True)
        unit.expand(unit.depthwise(channel_shuffle(unit.reduce(x), unit.shuffle_groups)))[
            :, :16
        ].sum().backward()
        reached[shuffle] = bool(x.grad[:, 16:].abs().sum() > 0)
    assert reached == {True: True, False: False}


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 7), (13, 17), (32, 33)])
def test_strided_unit_halves_rounded_up_and_appends_its_pooled_input(height, width):
    unit = ShuffleUnit(24, 72, groups=3, stride=2).eval()
    x = torch.rand(1, 24, height, width)
    out = unit(x)
    assert out.shape == (1, 72, -(-height // 2), -(-width // 2))
    pooled = nn.AvgPool2d(3, stride=2, padding=1)(x)
    assert torch.equal(out[:, 48:], pooled)


def test_unit_at_stride_one_adds_its_input():
    unit = ShuffleUnit(24, 24, groups=2).eval()
    nn.init.zeros_(unit.expand.norm.weight)
    x = torch.rand(2, 24, 5, 6)
    assert torch.equal(unit(x), x)


def test_no_activation_follows_the_depthwise_convolution():
    unit = ShuffleUnit(24, 24, groups=2)
    seen = []
    unit.expand.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    unit(torch.randn(2, 24, 8, 8))
    assert seen[0].min() < 0


def test_squeeze_excitation_scales_whole_channels_by_a_sigmoid_of_all_means():
    layer = SqueezeExcitation(32).double()
    x = torch.randn(2, 32, 4, 5, dtype=torch.float64)
    hidden = torch.relu(x.mean((2, 3)) @ layer.squeeze.weight.flatten(1).T + layer.squeeze.bias)
    weights = torch.sigmoid(hidden @ layer.excite.weight.flatten(1).T + layer.excite.bias)
    assert_close("excited", layer(x), x * weights[:, :, None, None], FLOAT64)
    assert layer.squeeze.weight.shape == (2, 32, 1, 1)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="do not split"):
        ShuffleUnit(24, 50, groups=4, stride=2)
    with pytest.raises(ValueError, match="make them equal"):
        ShuffleUnit(24, 48, groups=3)


def test_round_up_leaves_multiples_alone():
    assert [round_up(n, 8) for n in (6, 8, 24, 36)] == [8, 8, 24, 40]
