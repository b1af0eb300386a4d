"""What TensorBoard shows of a run: the history's numbers and the report's pictures."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
from PIL import Image

from espnetv2.extras import require
from espnetv2.training.report import going_on

Rows = Sequence[Mapping[str, Any]]


def require_tensorboard() -> None:
    """Say before training that TensorBoard is missing.

    Raises:
        UserError: The extra `tensorboard` is not installed.
    """
    require("tensorboard", extra="tensorboard")


class TensorBoard(L.Callback):
    """Writes each row of a history to `<folder>/tensorboard/`, as soon as there is one.

    A run that goes on begins a new file with all rows that it goes on from, in the place of the
    older files: those may hold an epoch that was not saved and is trained again.

    Args:
        folder: Of the run.
        rows: Gives the history so far; called when an epoch is in it.
    """

    def __init__(self, folder: Path, rows: Callable[[], Rows]) -> None:
        self.folder, self.rows = folder / "tensorboard", rows
        self.writer: Any = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write what was before."""
        if not trainer.is_global_zero:
            return
        for old in self.folder.glob("events.out.tfevents.*"):
            old.unlink()
        # a TensorBoard that is open has read the old files: it is told to forget them
        self.writer = _writer(self.folder, purge_step=0)
        end = time.time()
        rows = self.rows()
        for number, row in enumerate(rows):
            later = sum(float(other["seconds"]) for other in rows[number + 1 :])
            self._write(row, at=end - later)
        self.writer.flush()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the new row."""
        if self.writer is not None:
            self._write(self.rows()[-1], at=time.time())
            self.writer.flush()

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Close the file."""
        self._close()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Close the file."""
        self._close()

    def _write(self, row: Mapping[str, Any], *, at: float) -> None:
        for name, value in row.items():
            if name != "epoch" and isinstance(value, (int, float)):
                self.writer.add_scalar(name, value, int(row["epoch"]), walltime=at)

    def _close(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None


def add_report(folder: Path, *, epoch: int) -> None:
    """Add the pictures of `<folder>/report/` to `<folder>/tensorboard/`; never ends a run."""
    with going_on(folder / "tensorboard"):
        writer = _writer(folder / "tensorboard")
        for path in sorted((folder / "report").glob("*.png")):
            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            writer.add_image(f"report/{path.stem}", pixels, epoch, dataformats="HWC")
        writer.close()


def _writer(folder: Path, *, purge_step: int | None = None) -> Any:
    require_tensorboard()
    writers = require("torch.utils.tensorboard", extra="tensorboard")
    return writers.SummaryWriter(str(folder), purge_step=purge_step)
