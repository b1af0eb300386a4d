"""What watches a run: its history on disk, its line per epoch, the end of patience."""

from __future__ import annotations

import csv
import logging
import time
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as L
import torch

from espnetv2.errors import UserError
from espnetv2.training.mishaps import LossError
from espnetv2.training.saving import replacing

log = logging.getLogger("espnetv2")


class History(L.Callback):
    """One row an epoch in `history.csv`, rewritten whole, and one line in the log.

    The rows live in the checkpoint, so a resumed run goes on with the table it had.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[dict[str, Any]] = []
        self.seconds = 0.0
        self.loss, self.steps = 0.0, 0  # of the epoch so far
        self._start = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        """Rows so far and time spent."""
        return {
            "rows": self.rows,
            "seconds": self._spent(),
            "loss": self.loss,
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.rows, self.seconds = state["rows"], state["seconds"]
        self.loss, self.steps = state["loss"], state["steps"]

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Every process goes on with the mean of all, as only the first one's state is kept."""
        checkpoint["callbacks"][self.state_key]["loss"] = _mean_over_processes(trainer, self.loss)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._start = time.perf_counter()
        self._epoch_start = self._start

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the epoch's clock."""
        self._epoch_start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *batch: Any
    ) -> None:
        """Add the step's loss."""
        self.loss += float(outputs["loss"]) * trainer.accumulate_grad_batches
        self.steps += 1

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add the row."""
        loss = _mean_over_processes(trainer, self.loss / max(1, self.steps))
        self.loss, self.steps = 0.0, 0
        scores = {k: float(v) for k, v in trainer.callback_metrics.items()}
        values = {k: round(v, 6) for k, v in {"loss": loss, **scores}.items()}
        rate = max(group["lr"] for group in trainer.optimizers[0].param_groups)
        seconds = time.perf_counter() - self._epoch_start
        row = {"epoch": trainer.current_epoch, "rate": rate, **values, "seconds": round(seconds, 2)}
        self.rows = [old for old in self.rows if old["epoch"] != row["epoch"]] + [row]
        if not trainer.is_global_zero:
            return
        self._write()
        left = (int(trainer.max_epochs or 0) - len(self.rows)) * seconds
        shown = ", ".join(f"{k} {v:.4g}" for k, v in values.items())
        log.info(
            "epoch %d/%s: %s, rate %.4g, %.0f s, %.0f min left",
            row["epoch"] + 1,
            trainer.max_epochs,
            shown,
            rate,
            seconds,
            left / 60,
        )

    def _write(self) -> None:
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        with (
            replacing(self.folder / "history.csv") as scratch,
            scratch.open("w", newline="", encoding="utf-8") as file,
        ):
            table = csv.DictWriter(file, names)
            table.writeheader()
            table.writerows(self.rows)

    def _spent(self) -> float:
        return self.seconds + time.perf_counter() - self._start


def _mean_over_processes(trainer: L.Trainer, value: float) -> float:
    if trainer.world_size == 1:
        return value
    device = trainer.strategy.root_device
    return float(trainer.strategy.reduce(torch.tensor(value, device=device)))


class LastCheckpoint(L.Callback):
    """Keeps `last.ckpt`, to go on from; it is replaced whole.

    What is saved within an epoch takes the place of `last.ckpt` when the next loss has turned out
    finite: weights that have just run away are never the last ones. It must be the last callback,
    or the others' state is saved a step late.

    Attributes:
        interrupted: Set by Ctrl-C: save at the next place that can be resumed from, and stop.
    """

    def __init__(self, folder: Path, *, steps: int) -> None:
        self.folder, self.steps = folder, steps
        self.interrupted = False
        self._next: Path | None = None  # saved, but not yet shown to give a finite loss

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save now and then; what is saved behind an epoch's last batch would skip validation."""
        self._keep_next(trainer)
        if batch_idx + 1 >= trainer.num_training_batches:
            return
        if self._asked(trainer):
            self.save_last(trainer)
        elif (batch_idx + 1) % self.steps == 0:
            self.save_next(trainer)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Weights that have run away are dropped, all others kept."""
        if isinstance(exception, LossError):
            if self._next is not None and trainer.is_global_zero:
                self._next.unlink(missing_ok=True)
            self._next = None
        self._keep_next(trainer)

    def save_next(self, trainer: L.Trainer) -> None:
        """Save what becomes `last.ckpt` with the next finite loss."""
        self.save(trainer, "next.ckpt")
        self._next = self.folder / "next.ckpt"

    def save_last(self, trainer: L.Trainer) -> None:
        """Save what is known to be sound; the place where Ctrl-C stops."""
        self.save(trainer, "last.ckpt")
        if self._asked(trainer):
            raise UserError(f"interrupted; all is saved in {self.folder}, go on with --resume")

    def save(self, trainer: L.Trainer, name: str) -> None:
        """Write a checkpoint of the run; every process takes part, the first one writes."""
        with replacing(self.folder / name, here=trainer.is_global_zero) as scratch:
            trainer.save_checkpoint(scratch)

    def _keep_next(self, trainer: L.Trainer) -> None:
        if self._next is not None and trainer.is_global_zero:
            self._next.replace(self.folder / "last.ckpt")
        self._next = None

    def _asked(self, trainer: L.Trainer) -> bool:
        if trainer.world_size == 1:
            return self.interrupted
        # one process may have heard of it a step before the others
        return bool(trainer.strategy.reduce_boolean_decision(self.interrupted, all=False))


class Checkpoints(LastCheckpoint):
    """Keeps `best.ckpt` too, of the epoch that scores best."""

    def __init__(
        self, folder: Path, *, steps: int, monitor: str, mode: Literal["max", "min"]
    ) -> None:
        super().__init__(folder, steps=steps)
        self.monitor, self.mode = monitor, mode
        self.best: float | None = None

    def state_dict(self) -> dict[str, Any]:
        """The best score so far."""
        return {"best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.best = state["best"]

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save, and keep what scores better than all before."""
        loss = trainer.callback_metrics.get("val_loss", torch.zeros(()))
        if not bool(torch.isfinite(loss)):  # the next step's loss will tell
            self.save_next(trainer)
            return
        if (score := trainer.callback_metrics.get(self.monitor)) is not None:
            sign = 1 if self.mode == "max" else -1
            value = float(score)
            if value == value and (self.best is None or sign * value > sign * self.best):
                self.best = value
                self.save(trainer, "best.ckpt")
        self.save_last(trainer)
