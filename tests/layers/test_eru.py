import itertools
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from close import FLOAT64, assert_close
from espnetv2.errors import UserError
from espnetv2.layers import recurrence
from espnetv2.layers.eru import ERU, EESP1d, GroupedLinear


def lively(module):
    """In float64 and eval mode, every number random, so that no term can hide behind a 0 or 1."""
    for part in module.double().modules():
        if isinstance(part, nn.BatchNorm1d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias)
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 2)
        if isinstance(part, nn.PReLU):
            nn.init.uniform_(part.weight, 0.1, 0.5)
        if isinstance(part, ERU):
            nn.init.normal_(part.bias)
    return module.eval()


def grouped_conv(x, blocks):
    """x (N, C, T), blocks [(in/g, out/g)] -> the 1x1 convolution that the paper names."""
    kernel = torch.cat([block.T for block in blocks]).unsqueeze(2)
    return F.conv1d(x, kernel, groups=len(blocks))


def channels(layer, copy, copies):
    """The layer's arguments of one copy."""
    return [t.chunk(copies)[copy] for t in layer]


def norm_of(norm):
    return norm.running_mean, norm.running_var, norm.weight, norm.bias


def literal_unit(unit, copy, x, groups):
    """One unit on x (B, D, T) by plain 1-D convolutions, zero padded; causal if over time."""
    n = unit.copies
    blocks = [group.chunk(n, dim=1)[copy] for group in unit.reduce.weight]
    act = unit.reduce_act
    reduced = F.batch_norm(grouped_conv(x, blocks), *channels(norm_of(act.norm), copy, n))
    reduced = F.prelu(reduced, *channels([act.act.weight], copy, n))
    branches = []
    for index in range(unit.branches):
        kernel, dilation = unit.taps[copy, index].unsqueeze(1), index + 1
        padding = (2 * dilation, 0) if unit.over_time else (dilation, dilation)
        branches.append(
            F.conv1d(F.pad(reduced, padding), kernel, dilation=dilation, groups=len(kernel))
        )
    maps = torch.cat(list(itertools.accumulate(branches)), dim=1)
    fused = F.batch_norm(maps, *channels(norm_of(unit.fuse.norm), copy, n))
    fused = F.prelu(fused, *channels([unit.fuse.act.weight], copy, n))
    merged = grouped_conv(fused, unit.merge.weight[copy * groups : (copy + 1) * groups])
    merged = F.batch_norm(merged, *channels(norm_of(unit.merge_norm), copy, n))
    if merged.shape == x.shape:
        merged = merged + x
    return F.prelu(merged, *channels([unit.act.weight], copy, n))


@pytest.mark.parametrize("over_time", [False, True])
@pytest.mark.parametrize(
    ("in_features", "out_features", "copies"), [(24, 32, 4), (32, 32, 4), (24, 32, 1)]
)
def test_unit_equals_plain_convolutions_gate_by_gate(in_features, out_features, copies, over_time):
    unit = lively(EESP1d(in_features, out_features, copies=copies, over_time=over_time))
    x = torch.randn(11, 3, in_features, dtype=torch.float64)  # (T, B, D)
    signal = x.permute(1, 2, 0) if over_time else x.reshape(33, in_features, 1)
    expected = torch.cat([literal_unit(unit, c, signal, 4) for c in range(copies)], dim=1)
    if over_time:
        expected = expected.permute(2, 0, 1)
    context = x.new_zeros(unit.past, 3, unit.reduced)
    assert_close("unit", unit(x, context)[0].flatten(), expected.flatten(), FLOAT64)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_grouped_linear_keeps_groups_apart_in_every_copy(groups):
    layer = GroupedLinear(16, 8, groups=groups, copies=3).double()
    x = torch.randn(5, 16, dtype=torch.float64)
    parts = [
        piece @ group.chunk(3, dim=1)[copy]
        for copy in range(3)
        for piece, group in zip(x.chunk(groups, dim=1), layer.weight, strict=True)
    ]
    assert_close("grouped", layer(x), torch.cat(parts, dim=1), FLOAT64)


def test_every_block_of_a_grouped_linear_begins_orthogonal():
    layer = GroupedLinear(32, 32, groups=4, copies=2)
    for group in layer.weight:
        for block in group.chunk(2, dim=1):
            assert torch.allclose(block.T @ block, torch.eye(8), atol=1e-5)


@pytest.mark.parametrize("transforms", [1, 4])
def test_cell_is_torchs_lstm_cell_on_the_transformed_input(transforms):
    cell = lively(ERU(32, 16, transforms=transforms))
    x = torch.randn(6, 3, 32, dtype=torch.float64)
    state = cell.initial_state(3)
    outputs, after = cell(x, state)
    lstm = nn.LSTMCell(64, 16).double()
    order = torch.arange(64).view(4, 16)[[0, 1, 3, 2]].flatten()  # ours i f o g, torch's i f g o
    lstm.weight_ih.data = torch.eye(64, dtype=torch.float64)[order]
    lstm.weight_hh.data = cell.recurrence.weight[0].T[order]
    lstm.bias_ih.data, lstm.bias_hh.data = cell.bias[order], torch.zeros_like(cell.bias)
    hidden = cell.initial_state(3)[:2]
    for step, output in zip(cell.transform(x, state.context)[0], outputs, strict=True):
        hidden = lstm(step, hidden)
        assert_close("hidden", output, hidden[0], FLOAT64)
    assert_close("cell", after.cell, hidden[1], FLOAT64)


@pytest.mark.parametrize("hidden_groups", [1, 2, 4])
@pytest.mark.parametrize("transforms", [1, 4])
def test_parameters_follow_the_formula(transforms, hidden_groups):
    d, h, k, g = 48, 32, 4, 4
    m = 4 * h // transforms
    n = m // k
    unit = d * n // g + 3 * n * k + m * m // g + 3 * n + 6 * m
    expected = transforms * unit + 4 * h * h // hidden_groups + 4 * h
    cell = ERU(d, h, transforms=transforms, hidden_groups=hidden_groups)
    assert sum(p.numel() for p in cell.parameters()) == expected


def test_only_outer_taps_are_idle_for_one_word():
    cell = lively(ERU(32, 32))
    x = torch.randn(4, 2, 32, dtype=torch.float64)
    cell(x, cell.initial_state(2))[0].square().sum().backward()
    assert [n for n, p in cell.named_parameters() if not p.grad.any()] == []
    taps = cell.transform.taps.grad
    assert taps[..., 1].all()
    assert not taps[..., [0, 2]].any()


def test_over_time_every_tap_acts_and_no_parameter_is_idle():
    cell = lively(ERU(32, 32, over_time=True))
    x = torch.randn(12, 2, 32, dtype=torch.float64)
    cell(x, cell.initial_state(2))[0].square().sum().backward()
    assert [n for n, p in cell.named_parameters() if not p.grad.any()] == []
    assert cell.transform.taps.grad.all()


def test_norm_uses_all_words_of_the_segment_in_training():
    unit = EESP1d(16, 16)
    x = torch.randn(7, 5, 16)
    unit(x, x.new_zeros(0, 5, unit.reduced))
    mean = unit.reduce(x.flatten(0, 1)).mean(0)
    assert torch.allclose(unit.reduce_act.norm.running_mean, 0.1 * mean, atol=1e-6)


def test_residual_is_only_where_sizes_agree():
    assert EESP1d(32, 32, copies=4).residual
    assert not EESP1d(32, 48, copies=4).residual
    assert not ERU(32, 32, transforms=1).transform.residual


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((400, 1000), "do not split into 4 branches and 4 groups: use multiples of 4 -> 16"),
        ((402, 400), "402 -> 400"),
    ],
)
def test_features_that_do_not_split_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        ERU(*arguments)


def test_hidden_groups_and_transforms_are_checked():
    with pytest.raises(UserError, match="into 3 groups"):
        ERU(16, 16, hidden_groups=3)
    with pytest.raises(UserError, match="transforms=2"):
        ERU(16, 16, transforms=2)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("copies", [1, 4])
def test_a_grouped_map_is_one_matrix_with_zeros_between_groups(groups, copies):
    layer = GroupedLinear(8, 16, groups=groups, copies=copies).double()
    x = torch.randn(5, 8, dtype=torch.float64)
    dense = layer.dense()
    assert dense.shape == (8, copies * 16)
    assert int((dense == 0).sum()) == dense.numel() * (groups - 1) // groups
    one, other = x @ dense, layer(x)
    assert_close("outputs", one, other, FLOAT64)
    factor = torch.randn_like(one)
    (a,) = torch.autograd.grad(one, layer.weight, factor)
    (b,) = torch.autograd.grad(other, layer.weight, factor)
    assert_close("gradient", a, b, FLOAT64)


@pytest.mark.parametrize("hidden_groups", [1, 4])
def test_cudnns_recurrence_is_the_cells(hidden_groups):
    """What a GPU computes, here by torch's own LSTM."""
    cell = lively(ERU(16, 16, hidden_groups=hidden_groups))
    x, state = torch.randn(7, 3, 16, dtype=torch.float64), cell.initial_state(3)
    plain, after = cell(x, state)
    steps = cell.transform(x, state.context)[0] + cell.bias
    quick = recurrence.by_torch(steps, cell.recurrence.dense(), state.hidden, state.cell)
    for name, one, other in zip(
        ("outputs", "hidden", "cell"), quick, (plain, *after), strict=False
    ):
        assert_close(name, one, other, FLOAT64)


class Operations(TorchDispatchMode):
    """How often each operation ran."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.counts[str(operation)] += operation.namespace == "aten"  # else no work
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("hidden_groups", [1, 4])
@pytest.mark.parametrize("over_time", [False, True])
def test_on_a_gpu_a_segment_is_one_transform_and_one_lstm(
    monkeypatch, over_time, hidden_groups, training
):
    """Counted on tensors that have shapes and a device only: no operation depends on the words."""
    segments = []

    def lstm(x, state, weights, *options):
        segments.append((tuple(x.shape), tuple(weights[1].shape)))
        return x[..., :16] * weights[1].sum(), *state

    monkeypatch.setattr(torch, "lstm", lstm)
    counts = []
    with FakeTensorMode(), torch.device("cuda"):
        cell = ERU(32, 16, hidden_groups=hidden_groups, over_time=over_time).train(training)
        for words in (3, 30):
            x = torch.empty(words, 2, 32)
            with Operations() as seen:
                out, _ = cell(x, cell.initial_state(2))
            assert (out.device.type, tuple(out.shape)) == ("cuda", (words, 2, 16))
            counts.append(seen.counts)
    assert counts[0] == counts[1]
    assert segments == [((3, 2, 64), (64, 16)), ((30, 2, 64), (64, 16))]
    assert 0 < counts[0]["aten.bmm.default"] < 20
