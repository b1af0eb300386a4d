"""The ERU language model: three recurrent layers between one embedding, used twice."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espnetv2.errors import UserError, unknown
from espnetv2.layers.eru import ERU, ERUState

State = tuple[ERUState, ...]
"""One entry per layer."""


@dataclass(frozen=True)
class Layout:
    """What decides the parameters of one language model.

    Attributes:
        width: Features between the layers, H in docs/eru.md.
        transforms: EESP units per cell, 4 (one per gate) or 1.
        branches: Of the EESP units, K in the paper.
        groups: Of the EESP units, g in the paper.
        hidden_groups: Of the hidden-to-hidden maps.
        over_time: Whether the EESP's signal is the sequence of words.
        embedding: Features of a word vector.
        layers: ERU layers.
        tied: Whether the decoder's weight is the embedding's.
    """

    width: int
    transforms: int = 4
    branches: int = 4
    groups: int = 4
    hidden_groups: int = 1
    over_time: bool = False
    embedding: int = 400
    layers: int = 3
    tied: bool = True


LAYOUTS = {"7m": Layout(width=448), "15m": Layout(width=976)}  # D21
"""Preset -> layout; the two rows of Table 3 of espnetv2 (arXiv v1)."""


class ERULanguageModel(nn.Module):
    """Predicts the next word: embedding, ERU layers, decoder.

    Standard dropout (a fresh mask for each element) follows the embedding, each layer and the
    last layer. The decoder multiplies with the embedding's weight (tied) unless told otherwise.

    | parameter                            | initial value                                  |
    |--------------------------------------|------------------------------------------------|
    | embedding (and the tied decoder)     | uniform, -0.1 to 0.1                           |
    | decoder bias, cell bias              | 0                                              |
    | decoder weight, untied               | uniform, -0.1 to 0.1                           |
    | point-wise and hidden-to-hidden maps | orthogonal, each group of each gate by itself  |
    | depth-wise taps                      | normal, std sqrt(2 / 3) (He)                   |
    | norm weight, bias; PReLU slope       | 1, 0; 0.25                                     |

    Paper: espnetv2 (arXiv v1) sec. 4.3; policy and tying of awdlstm.
    Shape: tokens (T, B) int64, state -> logits (T, B, V), state

    Args:
        layout: One of LAYOUTS or your own.
        vocabulary: Number of words, the end of sentence and the unknown word included.
        dropout: Probability, in training only.

    Raises:
        UserError: The layout's features do not split into its branches and groups.

    >>> network = ERULanguageModel(Layout(width=16, embedding=16, layers=2), vocabulary=10)
    >>> logits, state = network(torch.zeros(5, 2, dtype=torch.int64))
    >>> logits.shape, len(state)
    (torch.Size([5, 2, 10]), 2)
    """

    untied_weight: nn.Parameter | None

    def __init__(self, layout: Layout, *, vocabulary: int = 10_000, dropout: float = 0.5) -> None:
        super().__init__()
        if layout.layers < 1:
            raise UserError(f"a language model needs a layer, not layers={layout.layers}")
        last = layout.embedding if layout.tied else layout.width
        features = [layout.embedding, *[layout.width] * (layout.layers - 1), last]
        self.embedding = nn.Embedding(vocabulary, layout.embedding)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            ERU(
                before,
                after,
                transforms=layout.transforms,
                branches=layout.branches,
                groups=layout.groups,
                hidden_groups=layout.hidden_groups,
                over_time=layout.over_time,
            )
            for before, after in itertools.pairwise(features)
        )
        # a tied weight is one parameter under one name, so that files hold it once
        untied = None if layout.tied else nn.Parameter(torch.empty(vocabulary, last))
        self.register_parameter("untied_weight", untied)
        self.decoder_bias = nn.Parameter(torch.zeros(vocabulary))
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        nn.init.uniform_(self.decoder_weight, -0.1, 0.1)

    @property
    def decoder_weight(self) -> Tensor:
        """(V, features): the embedding's own weight if tied."""
        return self.embedding.weight if self.untied_weight is None else self.untied_weight

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """See the class; without a state the text begins here."""
        features, state = self.forward_features(tokens, state)
        return self.forward_head(self.dropout(features)), state

    def forward_features(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """The last layer's output (T, B, features) before its dropout, and the state."""
        if state is None:
            state = self.initial_state(tokens.shape[1])
        features: Tensor = self.embedding(tokens)  # (T, B, embedding)
        after = []
        for layer, before in zip(self.layers, state, strict=True):
            features, remembered = layer(self.dropout(features), before)
            after.append(remembered)
        return features, tuple(after)

    def forward_head(self, features: Tensor) -> Tensor:
        """Logits (T, B, V) from the last layer's output, dropped or not."""
        return F.linear(features, self.decoder_weight, self.decoder_bias)

    def initial_state(self, batch: int) -> State:
        """The state at the beginning of `batch` texts: zeros."""
        return tuple(layer.initial_state(batch) for layer in self._cells())

    def _cells(self) -> list[ERU]:
        return [layer for layer in self.layers if isinstance(layer, ERU)]


def detach(state: State) -> State:
    """The same state without its history, for the next segment of truncated back-propagation."""
    return tuple(ERUState(*(part.detach() for part in layer)) for layer in state)


def eru_lm(preset: str, *, vocabulary: int = 10_000, dropout: float = 0.5) -> ERULanguageModel:
    """Build the language model of about 7 or 15 million parameters, "7m" or "15m".

    Paper: espnetv2 (arXiv v1) Table 3.

    Raises:
        UserError: The preset does not exist.
    """
    if preset not in LAYOUTS:
        raise unknown("ERU preset", preset, LAYOUTS)
    return ERULanguageModel(LAYOUTS[preset], vocabulary=vocabulary, dropout=dropout)
