"""Runs the training of a language model: folder, checkpoints, table and summary."""

from __future__ import annotations

import csv
import dataclasses
import json
import logging
import platform
import resource
import time
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning import __version__ as lightning_version

from espnetv2.data.corpus import Corpus, read_corpus
from espnetv2.errors import UserError, unknown
from espnetv2.models.eru_lm import LAYOUTS, ERULanguageModel, Layout
from espnetv2.tasks.language import evaluate_text
from espnetv2.training.callbacks import LastCheckpoint
from espnetv2.training.language import LanguageModule, LanguageSettings
from espnetv2.training.report import write_language_report
from espnetv2.training.resume import read_json, require_checkpoint
from espnetv2.training.saving import gentle_interrupt, replacing, write_whole
from espnetv2.training.tensorboard import TensorBoard, add_report, require_tensorboard
from espnetv2.weights.files import Header, write_safetensors
from espnetv2.weights.load import load_network

TEST_BATCH = 1
"""The test text is read in one piece, as in awdlstm."""

log = logging.getLogger("espnetv2")


def fit_language(
    settings: LanguageSettings,
    *,
    out: Path,
    resume: bool = False,
    limit: int | None = None,
    device: str = "auto",
    progress: bool = False,
    checkpoint_steps: int = 200,
    tensorboard: bool = False,
) -> dict[str, float]:
    """Train a language model and judge its best epoch.

    The folder gets `settings.json`, `metrics.csv` (a row an epoch), `last.ckpt` (to resume from,
    exactly), `best.ckpt` (network, words and layout of the best epoch, averaged if averaging),
    `summary.json` and `report/`. Files are replaced whole: a kill leaves the previous ones.

    Args:
        resume: Go on with the run in `out`, or begin it if it was stopped before its first
            checkpoint.
        limit: Segments of an epoch and of each evaluation, for smoke runs.
        device: "cpu", "gpu" or "auto".
        progress: Whether to show a bar.
        checkpoint_steps: Segments between checkpoints within an epoch.
        tensorboard: Whether to write `tensorboard/` too.

    Returns:
        val_perplexity, test_perplexity, best_epoch, epochs, parameters, seconds.

    Raises:
        UserError: Data or folder do not fit, the loss is not finite, or Ctrl-C.
    """
    if tensorboard:
        require_tensorboard()
    corpus = read_corpus(settings.data)
    last = out / "last.ckpt"
    going_on = resume and last.is_file()
    network = build_network(settings, corpus)
    if settings.weights is not None and not going_on:
        _start_from(settings.weights, network, settings, corpus)
    module = LanguageModule(network, corpus, settings, limit=limit)
    _prepare(settings, out, resume=resume)
    if going_on:
        require_checkpoint(last, network, epochs=settings.epochs)
    keeper = Keeper(out, module, corpus.words, steps=checkpoint_steps)
    watchers: list[L.Callback] = [keeper]
    if tensorboard:
        watchers.insert(0, TensorBoard(out, lambda: shown_rows(module)))
    trainer = _trainer(settings, watchers, device=device, progress=progress)
    start = time.perf_counter()
    with gentle_interrupt(keeper), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice is not about this program's user
        trainer.fit(module, ckpt_path=last if going_on else None)
    scores = _judge(module, corpus, out, limit=limit)
    if settings.layout is None:
        header = Header(
            model=f"eru_lm_{settings.preset}",
            options={"num_classes": len(corpus.words)},
            classes=corpus.words,
            palette=None,
            preprocessing={},
            source={"name": f"eru_lm_{settings.preset}", "metrics": scores},
        )
        write_safetensors(module.network.state_dict(), header, out / "model.safetensors")
    summary = {
        "model": f"eru_lm_{settings.preset}" if settings.layout is None else "eru_lm",
        "task": "language",
        "data": settings.data.name,
        "split": "test",
        "metrics": {k: v for k, v in scores.items() if k.endswith("perplexity")},
        **scores,
        "seconds": round(sum(row["seconds"] for row in module.rows), 1),
        "seconds_this_call": round(time.perf_counter() - start, 1),
        "limit": limit,
        "device": _device_name(trainer),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "versions": {"torch": torch.__version__, "lightning": lightning_version},
        "settings": _plain(settings),
    }
    write_whole(out / "summary.json", json.dumps(summary, indent=1) + "\n")
    write_language_report(out, shown_rows(module), title=f"{summary['model']}, {summary['data']}")
    if tensorboard:
        add_report(out, epoch=trainer.current_epoch)
    return {**scores, "seconds": float(summary["seconds"])}


def shown_rows(module: LanguageModule) -> list[dict[str, Any]]:
    """The table with the rate of a segment of the usual length."""
    return [{**row, "rate": module.settings.lr} for row in module.rows]


def build_network(settings: LanguageSettings, corpus: Corpus) -> ERULanguageModel:
    """The network of the settings, its first weights a function of the seed.

    Raises:
        UserError: The preset does not exist or the layout does not split.
    """
    torch.manual_seed(settings.seed)
    return ERULanguageModel(
        layout_of(settings), vocabulary=len(corpus.words), dropout=settings.dropout
    )


def _start_from(
    weights: str, network: ERULanguageModel, settings: LanguageSettings, corpus: Corpus
) -> None:
    loaded, wanted = load_network(weights), f"eru_lm_{settings.preset}"
    if loaded.name != wanted:
        raise UserError(f"{weights} is of {loaded.name}, not {wanted}; give other weights")
    if loaded.classes != corpus.words:
        raise UserError(
            f"{weights} knows {len(loaded.classes)} words, other ones than the {len(corpus.words)} "
            f"of {settings.data}; give weights of the same text"
        )
    network.load_state_dict(loaded.network.state_dict())


def layout_of(settings: LanguageSettings) -> Layout:
    """The given layout, or the preset's.

    Raises:
        UserError: The preset does not exist.
    """
    if settings.layout is not None:
        return settings.layout
    if settings.preset not in LAYOUTS:
        raise unknown("ERU preset", settings.preset, LAYOUTS)
    return LAYOUTS[settings.preset]


class Keeper(LastCheckpoint):
    """Keeps `best.ckpt` and `metrics.csv` of a run, beside `last.ckpt`."""

    def __init__(
        self, folder: Path, module: LanguageModule, words: tuple[str, ...], *, steps: int
    ) -> None:
        super().__init__(folder, steps=steps)
        self.module, self.words = module, words

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the judged weights if they are the best; they are still in place."""
        module = self.module
        if not module.improved:
            return
        best = {
            "state_dict": {k: v.cpu() for k, v in module.network.state_dict().items()},
            "layout": dataclasses.asdict(layout_of(module.settings)),
            "words": self.words,
            **module.rows[-1],
        }
        with replacing(self.folder / "best.ckpt") as scratch:
            torch.save(best, scratch)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the table, then save."""
        rows = self.module.rows
        with (
            replacing(self.folder / "metrics.csv") as scratch,
            scratch.open("w", newline="", encoding="utf-8") as file,
        ):
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
        shown = "epoch %(epoch)d: %(optimizer)s, train %(train_perplexity).2f, validation "
        log.info(f"{shown}%(val_perplexity).2f, %(seconds).0f s", rows[-1])
        self.save_last(trainer)


def _prepare(settings: LanguageSettings, out: Path, *, resume: bool) -> None:
    """A folder that can be written and holds no other run."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {out} ({error.strerror}); choose another --out") from error
    path = out / "settings.json"
    if not path.is_file():
        if resume:
            log.info("%s holds no checkpoint; starting from the beginning", out)
        write_whole(path, json.dumps(_plain(settings), indent=1) + "\n")
        return
    if not resume:
        raise UserError(f"{out} holds a run already; add --resume, or choose another --out")
    before, now = read_json(path, mend="choose another --out"), _plain(settings)
    for name, value in now.items():
        if name not in ("epochs", "data") and before.get(name) != value:
            raise UserError(
                f"{out} was begun with {name}={before.get(name)}, not {value}; "
                "a run is resumed with its own settings"
            )


def _trainer(
    settings: LanguageSettings, watchers: list[L.Callback], *, device: str, progress: bool
) -> Any:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    return L.Trainer(
        accelerator=device,
        devices=1,
        max_epochs=settings.epochs,
        precision=settings.precision,
        gradient_clip_val=settings.clip,
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,
        callbacks=watchers,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=progress,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def _judge(
    module: LanguageModule, corpus: Corpus, out: Path, *, limit: int | None
) -> dict[str, float]:
    """Scores of the best epoch, whose weights are in the network afterwards."""
    best = torch.load(out / "best.ckpt", map_location="cpu", weights_only=True)
    network = module.network
    network.load_state_dict(best["state_dict"])
    test = evaluate_text(
        network, corpus.test, batch=TEST_BATCH, bptt=module.settings.bptt, limit=limit
    )
    return {
        "val_perplexity": best["val_perplexity"],
        "test_perplexity": test.perplexity,
        "best_epoch": best["epoch"],
        "epochs": len(module.rows),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
    }


def _plain(settings: LanguageSettings) -> dict[str, Any]:
    return {**dataclasses.asdict(settings), "data": str(settings.data)}


def _device_name(trainer: Any) -> str:
    if trainer.strategy.root_device.type == "cuda":
        return torch.cuda.get_device_name()
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
