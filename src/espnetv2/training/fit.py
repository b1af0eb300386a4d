"""Runs a recipe: builds data, network and task, lets Lightning train, keeps what came of it."""

from __future__ import annotations

import json
import logging
import platform
import resource
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader

from espnetv2.data.training_sets import DataSpec, TrainingData, open_training_data
from espnetv2.errors import UserError
from espnetv2.models.catalog import entry
from espnetv2.tasks.training import ClassificationTraining, SegmentationTraining, TrainingTask
from espnetv2.training.callbacks import History
from espnetv2.training.loader import ShareOf, TrainingLoader
from espnetv2.training.module import TrainingModule
from espnetv2.training.recipe import Recipe, stage_recipes
from espnetv2.weights.files import Header, write_safetensors
from espnetv2.weights.load import load_network

log = logging.getLogger("espnetv2")


@dataclass(frozen=True)
class Run:
    """Where and how much to train.

    Attributes:
        data: Folder of the data set.
        out: Folder of the run.
        resume: Go on with `out`'s last checkpoint.
        limit: Batches an epoch, for smoke runs.
        device: "cpu", "gpu" or "auto".
        devices: Processes (on CPUs) or GPUs.
        checkpoint_steps: Steps between checkpoints within an epoch.
        progress: Whether to show a bar.
        skip_bad: Leave out pictures that cannot be read.
        command: What was typed, for the summary.
    """

    data: Path
    out: Path
    resume: bool = False
    limit: int | None = None
    device: str = "auto"
    devices: int = 1
    checkpoint_steps: int = 200
    progress: bool = True
    skip_bad: bool = False
    command: str = ""


def train(recipe: Recipe, run: Run) -> dict[str, Any]:
    """Train every stage of a recipe; returns the summary that `summary.json` holds.

    The folder of the run gets `recipe.json`, `history.csv`, `last.ckpt`, `best.ckpt`,
    `model.safetensors` (the best weights, for `espnetv2 predict`) and `summary.json`; a run of
    several stages has one folder per stage.

    Raises:
        UserError: Data, recipe or folder do not fit.
    """
    stages = stage_recipes(recipe)
    summary: dict[str, Any] = {}
    for number, stage in enumerate(stages, start=1):
        folder = run.out if len(stages) == 1 else run.out / f"stage{number}"
        if number > 1:
            before = run.out / f"stage{number - 1}" / "model.safetensors"
            stage = stage.model_copy(update={"weights": str(before)})
        if run.resume and (folder / "summary.json").is_file():
            summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
            log.info("%s is finished already", folder)
            continue
        summary = _train_stage(stage, run, folder)
    if len(stages) > 1:
        for name in ("model.safetensors", "summary.json"):
            shutil.copy(folder / name, run.out / name)
    return summary


def _train_stage(recipe: Recipe, run: Run, folder: Path) -> dict[str, Any]:
    last = folder / "last.ckpt"
    _prepare(folder, last, resume=run.resume)
    L.seed_everything(recipe.seed, verbose=False)
    data = open_training_data(_spec(recipe, run), task=recipe.task)
    data.train.seed = recipe.seed
    for line in data.skipped:
        log.warning("left out: %s", line)
    network, fresh = _network(recipe, data)
    if fresh:
        log.info("started afresh: %s", ", ".join(fresh))
    if recipe.channels_last:
        network = network.to(memory_format=torch.channels_last)
    task = _task(recipe, data)
    history = History(folder)
    trainer = _trainer(recipe, run, folder, history, task)
    loader = TrainingLoader(
        data.train,
        batch_size=recipe.data.batch_size,
        collate=data.collate,
        workers=recipe.data.workers,
        seed=recipe.seed,
        rank=trainer.global_rank,
        world=trainer.world_size,
        limit=run.limit,
        pin=trainer.num_devices > 0 and torch.cuda.is_available(),
    )
    module = TrainingModule(network, task, recipe, steps=len(loader))
    (folder / "recipe.json").write_text(recipe.model_dump_json(indent=1), encoding="utf-8")
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice is not about this program's user
        trainer.fit(
            module,
            loader,
            _validation(data, recipe, trainer),
            ckpt_path=str(last) if run.resume and last.is_file() else None,
            weights_only=False,
        )
    if trainer.interrupted:
        raise UserError(f"interrupted; go on with: {run.command} --resume")
    summary = _summary(recipe, run, data, history, task, network, time.perf_counter() - start)
    if trainer.is_global_zero:
        _keep_best(folder, module, recipe, data, summary)
        text = json.dumps(summary, indent=1)
        (folder / "summary.json").write_text(text + "\n", encoding="utf-8")
    return summary


def _prepare(folder: Path, last: Path, *, resume: bool) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".write").touch()
        (folder / ".write").unlink()
    except OSError as error:
        raise UserError(
            f"cannot write {folder} ({error.strerror}); choose another --out"
        ) from error
    if last.is_file() and not resume:
        raise UserError(f"{folder} holds a run already; add --resume, or choose another --out")
    if resume and not last.is_file():
        log.info("%s holds no checkpoint; starting from the beginning", folder)


def _spec(recipe: Recipe, run: Run) -> DataSpec:
    return DataSpec(
        format=recipe.data.format,
        root=run.data,
        train_split=recipe.data.train_split,
        val_split=recipe.data.val_split,
        size=recipe.data.size,
        convention=recipe.data.convention,
        augment=recipe.data.augment,
        classes=recipe.data.classes,
        skip_bad=run.skip_bad,
    )


def _network(recipe: Recipe, data: TrainingData) -> tuple[nn.Module, tuple[str, ...]]:
    """The network for the data's classes, and what of it the given weights did not fill."""
    row = entry(recipe.model)
    classes = len(data.classes) + (recipe.task == "detection")
    options = {"num_classes": classes, "in_channels": 3, **recipe.options}
    if recipe.weights is None:
        return row.build(**options), ()
    loaded = load_network(recipe.weights, num_classes=classes)
    if loaded.name == recipe.model:
        return loaded.network.train(), loaded.fresh
    network = row.build(**options)
    return network, _take_backbone(network, loaded.network, recipe)


def _take_backbone(network: nn.Module, source: nn.Module, recipe: Recipe) -> tuple[str, ...]:
    """Copy what has the same name and shape, such as a classifier's backbone."""
    own, given = network.state_dict(), source.state_dict()
    same = {k for k, v in own.items() if k in given and given[k].shape == v.shape}
    if not any(name.startswith("backbone.") for name in same):
        raise UserError(f"{recipe.weights} has nothing that fits {recipe.model}")
    for name in same:
        own[name].copy_(given[name])
    return tuple(sorted(set(own) - same))


def _task(recipe: Recipe, data: TrainingData) -> TrainingTask:
    classes = len(data.classes)
    weights = recipe.loss.class_weights
    factors: Sequence[float] | None = None
    if weights == "inverse-log":
        factors = _inverse_log(data.class_counts())
    elif weights != "none":
        factors = weights
    if recipe.task == "classification":
        return ClassificationTraining(
            classes, label_smoothing=recipe.loss.label_smoothing, class_weights=factors
        )
    if recipe.task == "segmentation":
        return SegmentationTraining(
            classes,
            class_weights=factors,
            auxiliary=recipe.loss.auxiliary,
            label_smoothing=recipe.loss.label_smoothing,
        )
    if recipe.task == "detection":
        from espnetv2.tasks.detection_training import DetectionTraining

        return DetectionTraining(data.classes)
    if recipe.task == "multilabel":
        from espnetv2.tasks.multilabel import MultiLabelTraining

        return MultiLabelTraining(classes)
    raise UserError(f"task {recipe.task} is not trained from pictures")


def _inverse_log(counts: torch.Tensor) -> list[float]:
    """1 / ln(1.10 + share) per class, with fixed bins.

    Paper: espnet; the official rule, whose bins move with each image, is not used.
    """
    shares = counts.double() / counts.sum().clamp(min=1)
    return [float(value) for value in 1 / torch.log(1.10 + shares)]


def _trainer(
    recipe: Recipe, run: Run, folder: Path, history: History, task: TrainingTask
) -> L.Trainer:
    monitor = f"val_{task.monitor}"
    callbacks: list[L.Callback] = [
        history,
        ModelCheckpoint(
            folder, "best", monitor=monitor, mode=task.mode, enable_version_counter=False
        ),
        ModelCheckpoint(
            folder,
            "last",
            every_n_train_steps=run.checkpoint_steps,
            enable_version_counter=False,
            save_on_exception=True,
        ),
        _EpochCheckpoint(folder / "last.ckpt"),
    ]
    if recipe.ema is not None:
        callbacks.append(EMAWeightAveraging(decay=recipe.ema))
    if recipe.early_stopping is not None:
        callbacks.append(EarlyStopping(monitor, patience=recipe.early_stopping, mode=task.mode))
    warnings.filterwarnings("ignore", module="lightning")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    return L.Trainer(
        accelerator=run.device,
        devices=run.devices,
        strategy="ddp" if run.devices > 1 or _under_torchrun() else "auto",
        max_epochs=recipe.epochs,
        precision=recipe.precision,
        accumulate_grad_batches=recipe.accumulate,
        gradient_clip_val=recipe.clip,
        limit_val_batches=run.limit,
        num_sanity_val_steps=0,
        callbacks=callbacks,
        logger=False,
        enable_progress_bar=run.progress,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
    )


class _EpochCheckpoint(L.Callback):
    """Keeps `last.ckpt` at the end of every epoch too."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.save_checkpoint(self.path)


def _under_torchrun() -> bool:
    import os

    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def _validation(data: TrainingData, recipe: Recipe, trainer: L.Trainer) -> DataLoader[Any]:
    share = ShareOf(data.val, rank=trainer.global_rank, world=trainer.world_size)
    return DataLoader(
        share,
        batch_size=recipe.data.batch_size,
        collate_fn=data.collate,
        num_workers=recipe.data.workers,
    )


def _keep_best(
    folder: Path,
    module: TrainingModule,
    recipe: Recipe,
    data: TrainingData,
    summary: dict[str, Any],
) -> None:
    """Put the best weights back and write them as a file that `espnetv2 predict` takes."""
    best = folder / "best.ckpt"
    if best.is_file():
        state = torch.load(best, map_location="cpu", weights_only=False)["state_dict"]
        module.load_state_dict(state)
    classes = len(data.classes) + (recipe.task == "detection")
    header = Header(
        model=recipe.model,
        options={"num_classes": classes, **recipe.options},
        classes=data.classes,
        palette=data.palette,
        preprocessing=data.preprocessing.to_json(),
        source={"name": recipe.model, "trained": summary["commit"], "metrics": summary["metrics"]},
    )
    write_safetensors(module.network.state_dict(), header, folder / "model.safetensors")


def _summary(
    recipe: Recipe,
    run: Run,
    data: TrainingData,
    history: History,
    task: TrainingTask,
    network: nn.Module,
    seconds: float,
) -> dict[str, Any]:
    key = f"val_{task.monitor}"
    pick = max if task.mode == "max" else min
    scored = [row for row in history.rows if key in row]
    best = pick(scored, key=lambda row: row[key]) if scored else {}
    return {
        "model": recipe.model,
        "task": recipe.task,
        "data": recipe.data.format,
        "split": recipe.data.val_split,
        "metrics": {k.removeprefix("val_"): v for k, v in best.items() if k.startswith("val_")},
        "best_epoch": best.get("epoch"),
        "epochs": recipe.epochs,
        "classes": len(data.classes),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "command": run.command,
        "commit": _commit(),
        "device": f"{platform.machine()}, {torch.get_num_threads()} threads"
        if not torch.cuda.is_available()
        else torch.cuda.get_device_name(),
        "seconds": round(history.seconds + seconds, 1),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "versions": {
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "lightning": version("lightning"),
        },
        "recipe": recipe.model_dump(mode="json"),
    }


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False, cwd=Path.cwd()
    )
    return done.stdout.strip()
