"""What watches a run: its history on disk, its line per epoch, the end of patience."""

from __future__ import annotations

import csv
import logging
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch

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
        loss = trainer.strategy.reduce(torch.tensor(self.loss / max(1, self.steps)))
        self.loss, self.steps = 0.0, 0
        scores = {"loss": loss, **trainer.callback_metrics}
        values = {k: round(float(v), 6) for k, v in scores.items()}
        rate = max(group["lr"] for group in trainer.optimizers[0].param_groups)
        seconds = time.perf_counter() - self._epoch_start
        row = {"epoch": trainer.current_epoch, "rate": rate, **values, "seconds": round(seconds, 2)}
        self.rows = [old for old in self.rows if old["epoch"] != row["epoch"]] + [row]
        if not trainer.is_global_zero:
            return
        self.write()
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

    def write(self) -> None:
        """Write the table."""
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        scratch = self.folder / "history.csv.part"
        with scratch.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, names)
            table.writeheader()
            table.writerows(self.rows)
        scratch.replace(self.folder / "history.csv")

    def _spent(self) -> float:
        return self.seconds + time.perf_counter() - self._start
