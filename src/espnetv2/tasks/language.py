"""Language modelling: the training loss with activation regularisation, and perplexity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espnetv2.data.corpus import batchify, regular_segments
from espnetv2.models.eru_lm import ERULanguageModel, State, detach


@dataclass(frozen=True)
class Perplexity:
    """How well a text was predicted.

    Attributes:
        loss: Mean cross-entropy per word, in nats.
        words: Predicted words, ends of sentences included.
    """

    loss: float
    words: int

    @property
    def perplexity(self) -> float:
        """exp(loss); infinite where that overflows."""
        return math.exp(self.loss) if self.loss < 700 else math.inf


def training_loss(
    network: ERULanguageModel,
    tokens: Tensor,
    targets: Tensor,
    state: State | None,
    *,
    alpha: float = 2.0,
    beta: float = 1.0,
) -> tuple[Tensor, Tensor, State]:
    """Loss of one segment of truncated back-propagation.

        cross-entropy + alpha mean(dropped^2) + beta mean((h_t - h_{t-1})^2)

    `h` is the last layer's output before its dropout, `dropped` after it.

    Paper: awdlstm sec. 4.6 (activation and temporal activation regularisation).
    Shape: tokens, targets (T, B) -> (), ()

    Args:
        state: Where the previous segment ended, None at the beginning of the text.

    Returns:
        The loss, its cross-entropy alone (without history), and the state without history.
    """
    features, after = network.forward_features(tokens, state)  # (T, B, features)
    dropped = network.dropout(features)
    logits = network.forward_head(dropped)  # (T, B, V)
    entropy = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
    loss = entropy
    if alpha:
        loss = loss + alpha * dropped.square().mean()
    if beta and len(features) > 1:
        loss = loss + beta * (features[1:] - features[:-1]).square().mean()
    return loss, entropy.detach(), detach(after)


@torch.no_grad()
def segment_loss(
    network: ERULanguageModel, tokens: Tensor, targets: Tensor, state: State | None
) -> tuple[float, State]:
    """Summed cross-entropy of one segment in nats, and the state after it.

    Shape: tokens, targets (T, B)
    """
    logits, state = network(tokens, state)
    total = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="sum")
    return float(total), state


@torch.no_grad()
def settle_norms(network: ERULanguageModel, rows: Tensor, cuts: Sequence[tuple[int, int]]) -> None:
    """Take the batch norms' statistics anew, in place, from a text read without dropout.

    Averaged weights need it: the statistics of training belong to the weights in training, and
    were taken under dropout.

    Shape: rows (T, B)

    Args:
        cuts: First row and length of the segments to read; each counts alike.
    """
    training = network.training
    network.eval()
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm1d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all segments
        norm.train()
    state = None
    for start, length in cuts:
        _, state = network.forward_features(rows[start : start + length], state)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.train(training)


def evaluate_text(
    network: ERULanguageModel,
    tokens: Tensor,
    *,
    batch: int = 10,
    bptt: int = 70,
    limit: int | None = None,
) -> Perplexity:
    """Perplexity of a text, the state carried on from segment to segment.

    Every word but the first of each of the `batch` pieces is predicted, `<eos>` included; the
    length of the segments does not change the result.

    Shape: tokens (N,)

    Args:
        network: Put into eval mode for the time of the call.
        limit: Only so many segments.

    Raises:
        UserError: The text is too short for the batch.
    """
    rows = batchify(tokens, batch).to(network.decoder_bias.device)
    training = network.training
    network.eval()
    state, total, words = None, 0.0, 0
    for start, length in regular_segments(len(rows), bptt=bptt)[:limit]:
        targets = rows[start + 1 : start + 1 + length]
        some, state = segment_loss(network, rows[start : start + length], targets, state)
        total += some
        words += targets.numel()
    network.train(training)
    return Perplexity(total / words, words)
