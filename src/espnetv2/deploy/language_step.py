"""One step of the ERU language model with plain tensors in and out, for engines without Python."""

from __future__ import annotations

from torch import Tensor, nn

from espnetv2.layers.eru import ERUState
from espnetv2.models.eru_lm import ERULanguageModel


class LanguageStep(nn.Module):
    """A few words of every text and what the layers remember, in; logits and new memory, out.

    The caller feeds the memory back with the next words and begins with zeros. A layer's memory
    of earlier words (`context`) is left out where the layer keeps none.

    | input             | shape              | output                 | shape               |
    |-------------------|--------------------|------------------------|---------------------|
    | tokens            | (T, B) int64       | logits                 | (T, B, V)           |
    | hidden_0, cell_0  | (B, width)         | next_hidden_0, ...     | the same            |
    | context_0, if any | (past, B, channels)| next_context_0, if any | the same            |

    Args:
        network: In either form.
    """

    def __init__(self, network: ERULanguageModel) -> None:
        super().__init__()
        self.network = network
        self.parts: tuple[tuple[str, ...], ...] = tuple(
            ("hidden", "cell", "context") if len(state.context) else ("hidden", "cell")
            for state in network.initial_state(1)
        )

    def forward(self, tokens: Tensor, *memory: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        left = list(memory)
        empty = self.network.initial_state(tokens.shape[1])
        state = tuple(
            whole._replace(**{part: left.pop(0) for part in parts})
            for whole, parts in zip(empty, self.parts, strict=True)
        )
        logits, after = self.network(tokens, state)
        return (logits, *self._flat(after))

    @property
    def input_names(self) -> tuple[str, ...]:
        """Of `forward`'s arguments, in order."""
        return ("tokens", *self._memory_names())

    @property
    def output_names(self) -> tuple[str, ...]:
        """Of `forward`'s results, in order."""
        return ("logits", *(f"next_{name}" for name in self._memory_names()))

    def beginning(self, batch: int) -> tuple[Tensor, ...]:
        """The memory at the beginning of `batch` texts."""
        return self._flat(self.network.initial_state(batch))

    def _memory_names(self) -> list[str]:
        return [f"{part}_{layer}" for layer, parts in enumerate(self.parts) for part in parts]

    def _flat(self, state: tuple[ERUState, ...]) -> tuple[Tensor, ...]:
        return tuple(
            getattr(whole, part)
            for whole, parts in zip(state, self.parts, strict=True)
            for part in parts
        )


def batch_axis(name: str) -> int:
    """Of an input or output of `LanguageStep`, by name: words and contexts have time first."""
    timed = ("tokens", "logits", "context", "next_context")
    return 1 if name.startswith(timed) else 0
