"""Language models in Lightning: truncated back-propagation with a state that goes on."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import lightning.pytorch as L
import torch
from torch import Tensor, optim

from espnetv2.data.corpus import Corpus, batchify, regular_segments, segments
from espnetv2.layers.eru import ERUState
from espnetv2.models.eru_lm import ERULanguageModel, Layout, State
from espnetv2.tasks.language import Perplexity, segment_loss, settle_norms, training_loss
from espnetv2.training.mishaps import LossError


@dataclasses.dataclass(frozen=True)
class LanguageSettings:
    """How a language model is trained; the defaults are the paper's where it says anything.

    Paper: espnetv2 (arXiv v1) sec. 4.3; the policy is awdlstm's, sec. 5.

    Attributes:
        data: Folder of the three texts.
        preset: "7m" or "15m"; without effect when `layout` is given.
        layout: Numbers of another network.
        weights: What to start from, of the same network and words; None for fresh weights.
        epochs: Passes over the training text.
        batch: Pieces of the training text read side by side.
        eval_batch: The same of the validation text; the test text is read in one piece.
        bptt: Base length of a segment, in words.
        lr: Learning rate of a segment of `bptt` words; others in proportion.
        weight_decay: On all parameters.
        clip: Largest norm of the gradient.
        alpha: Weight of activation regularisation.
        beta: Weight of temporal activation regularisation.
        dropout: Probability.
        trigger: Averaging begins when the validation loss exceeds the best of all epochs but
            the last so many.
        norm_segments: Segments of the training text from which the statistics of averaged
            weights' norms are taken, without dropout; 0 keeps those of the weights in training.
        seed: Of weights, segments and dropout.
        precision: As Lightning names it: "32-true" or "bf16-mixed".
    """

    data: Path
    preset: str = "7m"
    layout: Layout | None = None
    weights: str | None = None
    epochs: int = 200
    batch: int = 20
    eval_batch: int = 10
    bptt: int = 70
    lr: float = 30.0
    weight_decay: float = 1.2e-6
    clip: float = 0.25
    alpha: float = 2.0
    beta: float = 1.0
    dropout: float = 0.5
    trigger: int = 5
    norm_segments: int = 50
    seed: int = 0
    precision: Literal["32-true", "bf16-mixed"] = "32-true"


class Segment(NamedTuple):
    """Consecutive rows of a text and what follows each.

    Attributes:
        number: Of the segment in its epoch.
        tokens: (T, B) int64.
        targets: (T, B) int64.
    """

    number: int
    tokens: Tensor
    targets: Tensor


class SegmentLoader:
    """The segments of one pass over a text, in order; knows where it stands.

    Lightning stores `state_dict` in its checkpoints and hands it back before it asks for the
    first segment.

    Args:
        rows: (T, B), of `batchify`.
        cuts: First row and length of each segment.
    """

    def __init__(self, rows: Tensor, cuts: Sequence[tuple[int, int]]) -> None:
        self.rows, self.cuts = rows, cuts
        self.done = 0

    def __len__(self) -> int:
        return len(self.cuts)

    def __iter__(self) -> Iterator[Segment]:
        for index in range(self.done, len(self.cuts)):
            start, length = self.cuts[index]
            self.done = index + 1
            yield Segment(
                index,
                self.rows[start : start + length],
                self.rows[start + 1 : start + 1 + length],
            )
        self.done = 0

    def state_dict(self) -> dict[str, int]:
        """How many segments were handed out."""
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on behind them."""
        self.done = state["done"]


def triggered(losses: Sequence[float], window: int) -> bool:
    """Whether the last validation loss exceeds the best of those before its last `window`.

    Paper: awdlstm Algorithm 1 (NT-ASGD).

    >>> triggered([5.0, 4.0, 3.0, 3.5], window=2), triggered([3.0, 5.0, 4.0, 3.5], window=2)
    (False, True)
    """
    *before, last = losses
    return len(before) > window and last > min(before[: len(before) - window])


class LanguageModule(L.LightningModule):
    """Trains a language model on a corpus.

    SGD until the trigger, then averaged SGD from that epoch on; validation and `best` see the
    averaged weights. Segments and dropout are functions of the seed, the epoch and the segment,
    and the state, the sums of the epoch and the losses of all epochs are in the checkpoint: a
    resumed run ends with the same weights.

    Paper: awdlstm sec. 3 and 5, Algorithm 1.

    Args:
        limit: Segments of an epoch and of the validation, for smoke runs.
    """

    def __init__(
        self,
        network: ERULanguageModel,
        corpus: Corpus,
        settings: LanguageSettings,
        *,
        limit: int | None = None,
    ) -> None:
        super().__init__()
        self.network, self.settings, self.limit = network, settings, limit
        self.train_rows = batchify(corpus.train, settings.batch)
        self.valid_rows = batchify(corpus.valid, settings.eval_batch)
        self.state: State | None = None
        self.averaging = False
        self.rows: list[dict[str, Any]] = []
        self.improved = False
        self._sums = [0.0, 0, 0.0]  # nats, words and seconds of the epoch so far
        self._clock = time.perf_counter()
        self._raw: dict[str, Tensor] = {}

    def train_dataloader(self) -> SegmentLoader:
        """The current epoch's segments; asked for anew each epoch."""
        settings, epoch = self.settings, self.trainer.current_epoch
        rows = self.train_rows
        cuts = segments(len(rows), bptt=settings.bptt, seed=settings.seed, epoch=epoch)
        return SegmentLoader(rows, cuts[: self.limit])

    def val_dataloader(self) -> SegmentLoader:
        """The validation text."""
        cuts = regular_segments(len(self.valid_rows), bptt=self.settings.bptt)
        return SegmentLoader(self.valid_rows, cuts[: self.limit])

    def configure_optimizers(self) -> optim.Optimizer:
        """SGD, or averaged SGD once triggered."""
        settings = self.settings
        if not self.averaging:
            return optim.SGD(
                self.network.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
            )
        return optim.ASGD(
            self.network.parameters(),
            lr=settings.lr,
            lambd=0.0,
            t0=0.0,
            weight_decay=settings.weight_decay,
        )

    def on_train_start(self) -> None:
        """Start the clock."""
        self._clock = time.perf_counter()

    def on_train_epoch_start(self) -> None:
        """The text begins again."""
        self.state = None
        self._sums = [0.0, 0, 0.0]

    def training_step(self, batch: Segment, batch_idx: int) -> Tensor:
        """Loss of one segment."""
        settings = self.settings
        position = settings.seed * 100_003 + self.trainer.current_epoch
        torch.manual_seed((position * 1_000_003 + batch.number) % 2**63)
        loss, entropy, self.state = training_loss(
            self.network,
            batch.tokens,
            batch.targets,
            _on(self.state, self.device),
            alpha=settings.alpha,
            beta=settings.beta,
        )
        if not torch.isfinite(loss):
            raise LossError(
                f"the loss is {float(loss)} at epoch {self.trainer.current_epoch + 1}, segment "
                f"{batch.number + 1}; lower the learning rate {settings.lr:g} and start again"
            )
        self._rate = settings.lr * len(batch.tokens) / settings.bptt
        self._sums[0] += float(entropy) * batch.targets.numel()
        self._sums[1] += batch.targets.numel()
        now = time.perf_counter()
        self._sums[2] += now - self._clock
        self._clock = now
        perplexity = math.exp(min(self._sums[0] / self._sums[1], 700))
        self.log("perplexity", perplexity, prog_bar=True, logger=False, batch_size=1)
        return loss

    def on_before_optimizer_step(self, optimizer: optim.Optimizer) -> None:
        """Scale the learning rate with the segment's length."""
        for group in optimizer.param_groups:
            group["lr"] = self._rate
        for state in optimizer.state.values():
            if "eta" in state:  # D81
                state["eta"].fill_(self._rate)

    def on_validation_start(self) -> None:
        """Put the weights to be judged in place."""
        self._raw = {k: v.clone() for k, v in self.network.state_dict().items()}
        if self.averaging:
            for parameter, state in self.trainer.optimizers[0].state.items():
                parameter.data.copy_(state["ax"])
        if self.averaging and self.settings.norm_segments:  # D82
            cuts = regular_segments(len(self.train_rows), bptt=self.settings.bptt)
            rows = self.train_rows.to(self.device)
            settle_norms(self.network, rows, cuts[: self.settings.norm_segments])
        self._judged: list[float] = [0.0, 0]
        self._valid_state: State | None = None

    def validation_step(self, batch: Segment, batch_idx: int) -> None:
        """Add one segment's loss."""
        some, self._valid_state = segment_loss(
            self.network, batch.tokens, batch.targets, self._valid_state
        )
        self._judged[0] += some
        self._judged[1] += batch.targets.numel()

    def on_validation_epoch_end(self) -> None:
        """Write down the epoch's row."""
        judged = Perplexity(self._judged[0] / self._judged[1], int(self._judged[1]))
        trained = Perplexity(self._sums[0] / self._sums[1], int(self._sums[1]))
        self.improved = all(judged.loss < row["val_loss"] for row in self.rows)
        now = time.perf_counter()
        self.rows.append(
            {
                "epoch": self.trainer.current_epoch,
                "optimizer": "asgd" if self.averaging else "sgd",
                "train_loss": trained.loss,
                "train_perplexity": trained.perplexity,
                "val_loss": judged.loss,
                "val_perplexity": judged.perplexity,
                "seconds": round(self._sums[2] + now - self._clock, 2),
            }
        )
        self._clock = now
        self.log("val_perplexity", judged.perplexity, prog_bar=True, logger=False)

    def on_validation_end(self) -> None:
        """Put the training weights back; begin to average if it is time."""
        self.network.load_state_dict(self._raw)
        self._raw = {}
        losses = [row["val_loss"] for row in self.rows]
        if not self.averaging and triggered(losses, self.settings.trigger):
            self.averaging = True
            self.trainer.optimizers = [self.configure_optimizers()]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Everything that the next segment depends on and Lightning does not know."""
        checkpoint["language"] = {
            "state": None if self.state is None else [tuple(layer) for layer in self.state],
            "averaging": self.averaging,
            "rows": list(self.rows),
            "sums": list(self._sums),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Called before the optimiser is made, whose kind it decides."""
        kept = checkpoint["language"]
        layers = kept["state"]
        self.state = None if layers is None else tuple(ERUState(*layer) for layer in layers)
        self.averaging, self.rows, self._sums = kept["averaging"], kept["rows"], kept["sums"]


def _on(state: State | None, device: torch.device) -> State | None:
    if state is None:
        return None
    return tuple(ERUState(*(part.to(device) for part in layer)) for layer in state)
