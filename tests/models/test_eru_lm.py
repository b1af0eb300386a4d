import copy
import dataclasses
import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from close import FLOAT64, assert_close
from espnetv2.errors import UserError
from espnetv2.models.eru_lm import LAYOUTS, ERULanguageModel, Layout, detach, eru_lm

TINY = Layout(width=32, embedding=16)
VARIANTS = [
    dataclasses.replace(TINY, transforms=transforms, hidden_groups=groups, over_time=over_time)
    for transforms, groups in ((4, 1), (1, 4))
    for over_time in (False, True)
]
# the designs of docs/eru.md: transforms, hidden groups, width, parameters
DESIGNS = [
    (4, 1, 400, 6_581_600),
    (4, 1, 448, 7_012_544),
    (4, 1, 960, 14_548_160),
    (4, 1, 976, 14_870_240),
    (4, 1, 992, 15_197_568),
    (1, 1, 300, 6_855_500),
    (1, 1, 316, 7_020_236),
    (1, 1, 320, 7_062_720),
    (1, 1, 764, 15_010_764),
    (1, 1, 768, 15_111_488),
    (4, 4, 752, 6_965_664),
    (4, 4, 800, 7_296_000),
    (4, 4, 1552, 15_028_064),
    (1, 4, 400, 6_581_600),
    (1, 4, 448, 7_012_544),
    (1, 4, 984, 15_033_248),
    (1, 4, 1000, 15_363_200),
    (1, 2, 392, 6_981_696),
    (1, 2, 400, 7_061_600),
    (1, 2, 892, 14_989_196),
    (1, 2, 900, 15_167_100),
    (4, 2, 608, 6_991_488),
    (4, 2, 1280, 15_113_280),
]


def parameters(network):
    return sum(p.numel() for p in network.parameters())


def on_meta(layout):
    with torch.device("meta"):
        return ERULanguageModel(layout)


def by_formula(layout, vocabulary=10_000):
    """Sum of the facts' formula over the layers, plus the embedding and the decoder's bias."""
    sizes = [400, layout.width, layout.width, 400]
    total = vocabulary * 401
    for d, h in itertools.pairwise(sizes):
        k, g, m = layout.branches, layout.groups, 4 * h // layout.transforms
        n = m // k
        unit = d * n // g + 3 * n * k + m * m // g + 3 * n + 6 * m
        total += layout.transforms * unit + 4 * h * h // layout.hidden_groups + 4 * h
    return total


def lively(layout, **arguments):
    """Float64, eval mode, and statistics of norms that are not their first values."""
    network = ERULanguageModel(layout, vocabulary=20, **arguments).double()
    for part in network.modules():
        if isinstance(part, nn.BatchNorm1d):
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 2)
    return network.eval()


@pytest.mark.parametrize(("transforms", "hidden_groups", "width", "expected"), DESIGNS)
def test_designs_have_the_parameters_of_the_table(transforms, hidden_groups, width, expected):
    layout = Layout(width=width, transforms=transforms, hidden_groups=hidden_groups)
    assert expected == parameters(on_meta(layout)) == by_formula(layout)


@pytest.mark.parametrize(("width", "expected"), [(450, 6_867_120), (1000, 14_767_760)])
def test_five_branches_have_the_parameters_of_the_formula(width, expected):
    layout = Layout(width=width, branches=5, groups=5)
    assert expected == parameters(on_meta(layout)) == by_formula(layout)


@pytest.mark.parametrize(
    ("preset", "millions", "expected"), [("7m", 7, 7_012_544), ("15m", 15, 14_870_240)]
)
def test_presets_have_the_millions_that_the_paper_prints(preset, millions, expected):
    with torch.device("meta"):
        count = parameters(eru_lm(preset))
    assert count == expected
    assert abs(count / 1e6 - millions) < 0.5
    assert LAYOUTS[preset].hidden_groups == 1  # only input transforms are replaced


@pytest.mark.parametrize("layout", VARIANTS)
def test_a_segment_at_once_equals_its_words_one_by_one(layout):
    network = lively(layout)
    tokens = torch.randint(20, (23, 2))
    at_once, last = network(tokens)
    state, logits = None, []
    for piece in tokens.split([1] * 10 + [5, 1, 7]):
        some, state = network(piece, state)
        logits.append(some)
    assert_close("logits", torch.cat(logits), at_once, FLOAT64)
    for ours, theirs in zip(state, last, strict=True):
        assert_close("hidden", ours.hidden, theirs.hidden, FLOAT64)
        assert_close("cell", ours.cell, theirs.cell, FLOAT64)
        assert ours.context.shape == theirs.context.shape


@pytest.mark.parametrize("layout", VARIANTS)
def test_a_future_token_never_changes_earlier_logits(layout):
    network = lively(layout)
    tokens = torch.randint(20, (15, 2))
    other = tokens.clone()
    other[9] = (other[9] + 1) % 20
    before, after = network(tokens)[0], network(other)[0]
    assert torch.equal(before[:9], after[:9])
    assert not torch.equal(before[9], after[9])


def test_over_time_a_layer_sees_past_words_beside_its_recurrence():
    network = lively(dataclasses.replace(TINY, over_time=True))
    fresh, read = network.initial_state(1), network(torch.randint(20, (9, 1)))[1]
    token = torch.zeros(1, 1, dtype=torch.int64)
    forgotten = tuple(
        state._replace(context=start.context) for state, start in zip(read, fresh, strict=True)
    )
    assert not torch.allclose(network(token, read)[0], network(token, forgotten)[0])


def test_batch_entries_do_not_mix_when_evaluated():
    network = lively(TINY)
    tokens = torch.randint(20, (6, 3))
    assert_close("logits", network(tokens[:, 1:2])[0], network(tokens)[0][:, 1:2], FLOAT64)


def test_tied_decoder_shares_the_embeddings_memory_even_in_a_copy():
    network = ERULanguageModel(TINY, vocabulary=20)
    for tied in (network, copy.deepcopy(network)):
        assert tied.decoder_weight.data_ptr() == tied.embedding.weight.data_ptr()
        features = torch.randn(1, 1, 16)
        with torch.no_grad():
            tied.embedding.weight.mul_(2)
        expected = features @ tied.embedding.weight.T
        assert torch.allclose(tied.forward_head(features), expected)


def test_no_two_saved_tensors_share_memory():
    state = ERULanguageModel(TINY, vocabulary=20).state_dict()
    assert len({t.data_ptr() for t in state.values() if t.numel()}) == len(state)


def test_untied_decoder_has_its_own_weight_as_wide_as_the_layers():
    network = ERULanguageModel(dataclasses.replace(TINY, tied=False), vocabulary=20)
    assert network.decoder_weight.shape == (20, 32)
    assert network(torch.zeros(2, 3, dtype=torch.int64))[0].shape == (2, 3, 20)


@pytest.mark.parametrize("layout", VARIANTS)
def test_every_parameter_learns(layout):
    network = lively(layout)
    network(torch.randint(20, (12, 3)))[0].square().sum().backward()
    assert [n for n, p in network.named_parameters() if not p.grad.any()] == []


def test_dropout_falls_after_the_embedding_between_layers_and_after_the_last():
    network = ERULanguageModel(TINY, vocabulary=20)
    seen = []
    network.dropout.register_forward_hook(lambda *call: seen.append(call[1][0].shape[-1]))
    network(torch.zeros(4, 2, dtype=torch.int64))
    assert seen == [16, 32, 32, 16]
    assert network.dropout.p == 0.5


def test_initial_values_are_those_of_the_table():
    network = ERULanguageModel(TINY, vocabulary=2000)
    weight = network.embedding.weight
    assert 0.09 < weight.max() <= 0.1
    assert -0.1 <= weight.min() < -0.09
    assert not network.decoder_bias.any()
    assert not any(layer.bias.any() for layer in network.layers)
    block = network.layers[1].recurrence.weight[0][:, :32]
    assert torch.allclose(block.T @ block, torch.eye(32), atol=1e-5)


def test_detached_state_has_the_values_and_no_history():
    network = ERULanguageModel(dataclasses.replace(TINY, over_time=True), vocabulary=20)
    state = network(torch.zeros(3, 2, dtype=torch.int64))[1]
    for kept, free in zip(state, detach(state), strict=True):
        assert all(part.requires_grad for part in kept)
        assert not any(part.requires_grad for part in free)
        assert all(map(torch.equal, kept, free))


@pytest.mark.parametrize("over_time", [False, True])
def test_a_tiny_model_learns_a_repeated_sentence(over_time):
    layout = Layout(width=32, embedding=32, layers=1, over_time=over_time)
    network = ERULanguageModel(layout, vocabulary=12, dropout=0.0)
    text = torch.tensor([1, 5, 3, 5, 7, 2, 5, 9, 0] * 3)  # "5" needs memory
    tokens, targets = text[:-1].view(-1, 1).repeat(1, 4), text[1:].view(-1, 1).repeat(1, 4)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(25):
        loss = F.cross_entropy(network(tokens)[0].flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    logits = network.eval()(tokens)[0]
    assert F.cross_entropy(logits.flatten(0, 1), targets.flatten()) < 0.3


def test_unknown_preset_is_answered_with_the_ones_that_exist():
    with pytest.raises(UserError, match=r"unknown ERU preset '8m'.*7m"):
        eru_lm("8m")


def test_a_network_without_layers_is_refused():
    with pytest.raises(UserError, match="layers=0"):
        ERULanguageModel(Layout(width=16, layers=0))
