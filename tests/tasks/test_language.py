import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from close import FLOAT64, assert_close
from espnetv2.data.corpus import regular_segments
from espnetv2.models.eru_lm import ERULanguageModel, Layout
from espnetv2.tasks.language import Perplexity, evaluate_text, settle_norms, training_loss


def tiny(dropout=0.5):
    network = ERULanguageModel(Layout(width=16, embedding=16), vocabulary=20, dropout=dropout)
    return network.double()


def test_loss_is_cross_entropy_and_both_regularisations():
    network = tiny()
    tokens, targets = torch.randint(20, (2, 7, 3))
    torch.manual_seed(5)
    loss, entropy, _ = training_loss(network, tokens, targets, None, alpha=2, beta=1)
    torch.manual_seed(5)
    features, _ = network.forward_features(tokens)
    mask = network.dropout(torch.ones_like(features))
    logits = F.linear(features * mask, network.embedding.weight, network.decoder_bias)
    expected = F.cross_entropy(logits.view(-1, 20), targets.view(-1))
    assert_close("cross-entropy", entropy, expected, FLOAT64)
    expected = expected + 2 * (features * mask).pow(2).mean() + features.diff(dim=0).pow(2).mean()
    assert_close("loss", loss, expected, FLOAT64)


def test_no_regularisation_leaves_the_cross_entropy():
    tokens, targets = torch.randint(20, (2, 7, 3))
    loss, entropy, _ = training_loss(tiny(), tokens, targets, None, alpha=0, beta=0)
    assert loss.detach() == entropy


def test_a_segment_of_one_word_has_a_finite_loss():
    tokens, targets = torch.randint(20, (2, 1, 3))
    assert torch.isfinite(training_loss(tiny(), tokens, targets, None)[0])


def test_the_state_is_carried_on_without_its_history():
    network = tiny()
    tokens, targets = torch.randint(20, (2, 14, 3))
    _, _, state = training_loss(network, tokens[:7], targets[:7], None)
    assert not any(part.requires_grad for layer in state for part in layer)
    torch.manual_seed(1)
    carried = training_loss(network, tokens[7:], targets[7:], state)[1]
    torch.manual_seed(1)
    fresh = training_loss(network, tokens[7:], targets[7:], None)[1]
    assert carried != fresh


@pytest.mark.parametrize("bptt", [3, 7, 100])
def test_perplexity_counts_every_word_whatever_the_segments(bptt):
    network = tiny().eval()
    text = torch.randint(20, (101,))
    rows = text[:100].view(4, 25).t()
    with torch.no_grad():
        logits, _ = network(rows[:-1])
    expected = F.cross_entropy(logits.flatten(0, 1).float(), rows[1:].flatten())
    judged = evaluate_text(network, text, batch=4, bptt=bptt)
    assert judged.words == 96
    assert abs(judged.loss - expected.item()) < 1e-6
    assert judged.perplexity == math.exp(judged.loss)


def test_judging_uses_eval_mode_and_leaves_training_mode_on():
    network = tiny().train()
    text = torch.randint(20, (50,))
    before = network.layers[0].transform.fuse.norm.running_mean.clone()
    assert evaluate_text(network, text, batch=2) == evaluate_text(network, text, batch=2)
    assert network.training
    assert torch.equal(before, network.layers[0].transform.fuse.norm.running_mean)


def test_a_limit_is_in_segments():
    assert evaluate_text(tiny(), torch.randint(20, (50,)), batch=2, bptt=5, limit=2).words == 20


def test_an_untrained_network_is_as_perplexed_as_the_vocabulary_is_large():
    network = tiny()
    nn.init.zeros_(network.embedding.weight)
    assert abs(evaluate_text(network, torch.randint(20, (50,))).perplexity - 20) < 1e-4


def test_a_hopeless_loss_is_infinite_perplexity():
    assert Perplexity(1e4, 1).perplexity == math.inf


def test_settled_norms_know_the_text_without_dropout():
    network = tiny().train()
    rows = torch.randint(20, (40, 2))
    settle_norms(network, rows, regular_segments(40, bptt=39))
    assert network.training
    norm = network.layers[0].transform.reduce_act.norm
    assert norm.momentum == 0.1
    words = network.embedding(rows[:-1]).flatten(0, 1)
    reduced = network.layers[0].transform.reduce(words)
    assert_close("mean", norm.running_mean, reduced.mean(dim=0), FLOAT64)
    assert_close("variance", norm.running_var, reduced.var(dim=0), FLOAT64)
