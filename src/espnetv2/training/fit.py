"""Runs a recipe: builds data, network and task, lets Lightning train, keeps what came of it."""

from __future__ import annotations

import itertools
import json
import logging
import os
import shutil
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from torch import nn
from torch.utils.data import DataLoader

from espnetv2.data.class_weights import class_weights
from espnetv2.data.training_sets import DataSpec, TrainingData, open_training_data
from espnetv2.errors import UserError
from espnetv2.layers.eesp import use_kernels_
from espnetv2.models.catalog import entry
from espnetv2.tasks.training import ClassificationTraining, SegmentationTraining, TrainingTask
from espnetv2.training.callbacks import Checkpoints, History
from espnetv2.training.distillation import open_distiller
from espnetv2.training.loader import ShareOf, TrainingLoader
from espnetv2.training.mishaps import one_line
from espnetv2.training.module import TrainingModule, channels_last
from espnetv2.training.quantization import open_rounding
from espnetv2.training.recipe import Recipe, stage_recipes
from espnetv2.training.report import write_report
from espnetv2.training.resume import finished, require_checkpoint, require_same
from espnetv2.training.saving import (
    gentle_interrupt,
    leave_interrupts_to_the_main_process,
    write_whole,
)
from espnetv2.training.summary import current_commit, keep_best, summarize
from espnetv2.training.tensorboard import add_report, require_tensorboard
from espnetv2.training.trainer import Run, make_trainer, require_device
from espnetv2.weights.load import load_network

log = logging.getLogger("espnetv2")


def train(recipe: Recipe, run: Run) -> dict[str, Any]:
    """Train every stage of a recipe; returns the summary that `summary.json` holds.

    The folder of the run gets `recipe.json`, `history.csv`, `last.ckpt`, `best.ckpt`,
    `model.safetensors` (the best weights, for `espnetv2 predict`), `summary.json` and `report/`;
    a run of several stages has one folder per stage.

    Raises:
        UserError: Data, recipe or folder do not fit.
    """
    require_device(run)
    if run.tensorboard:
        require_tensorboard()
    if recipe.task == "language":
        return _train_language(recipe, run)
    stages = stage_recipes(recipe)
    _check_stages(stages)
    one = len(stages) == 1
    folders = [run.out if one else run.out / f"stage{i + 1}" for i in range(len(stages))]
    if run.resume:
        for number, (stage, folder) in enumerate(zip(stages, folders, strict=True)):
            require_same(folder, stage, free=("weights",) if number else ())
    summary: dict[str, Any] = {}
    for number, (stage, folder) in enumerate(zip(stages, folders, strict=True)):
        if number:
            before = folders[number - 1] / "model.safetensors"
            stage = stage.model_copy(update={"weights": str(before)})
        done = finished(folder, stage) if run.resume else None
        if done is not None:
            log.info("%s is finished already", folder)
        summary = done or _train_stage(stage, run, folder)
    if not one:
        for name in ("model.safetensors", "summary.json"):
            shutil.copy(folder / name, run.out / name)
    return summary


def _check_stages(stages: Sequence[Recipe]) -> None:
    """Each stage's network takes the weights of the one before; known before hours are spent."""
    for number, (before, after) in enumerate(itertools.pairwise(stages), start=2):
        if before.model != after.model:
            given, taken = entry(before.model).build(), entry(after.model).build()
            _take_backbone(taken, given, after, source=f"stage {number}: weights of {before.model}")


def _train_language(recipe: Recipe, run: Run) -> dict[str, Any]:
    from espnetv2.training.language import LanguageSettings
    from espnetv2.training.language_fit import fit_language

    spec = recipe.language
    if run.devices > 1 or run.skip_bad:
        option = "--skip-bad" if run.skip_bad else f"--devices {run.devices}"
        raise UserError(f"{option}: a language model trains in one process on text; leave it out")
    settings = LanguageSettings(
        data=run.data,
        preset=recipe.model.removeprefix("eru_lm_"),
        weights=recipe.weights,
        epochs=recipe.epochs,
        batch=recipe.data.batch_size,
        eval_batch=spec.eval_batch,
        bptt=spec.bptt,
        lr=spec.rate,
        weight_decay=spec.weight_decay,
        clip=spec.clip,
        alpha=spec.alpha,
        beta=spec.beta,
        dropout=spec.dropout,
        trigger=spec.trigger,
        seed=recipe.seed,
        precision="bf16-mixed" if recipe.precision == "bf16-mixed" else "32-true",
    )
    with one_line(recipe):
        scores = fit_language(
            settings,
            out=run.out,
            resume=run.resume,
            limit=run.limit,
            device=run.device,
            progress=run.progress,
            checkpoint_steps=run.checkpoint_steps,
            tensorboard=run.tensorboard,
        )
    return {
        "model": recipe.model,
        "task": "language",
        "data": "text",
        "split": "test",
        "metrics": scores,
        "command": run.command,
        "seconds": scores["seconds"],
    }


def _train_stage(recipe: Recipe, run: Run, folder: Path) -> dict[str, Any]:
    last = folder / "last.ckpt"
    _prepare(folder, last, resume=run.resume)
    L.seed_everything(recipe.seed, verbose=False)
    data = open_training_data(_spec(recipe, run), task=recipe.task)
    data.train.seed = recipe.seed
    for line in data.skipped:
        log.warning("left out: %s", line)
    network, options, fresh = _network(recipe, data)
    if fresh:
        parts = Counter(name.partition(".")[0] for name in fresh)
        shown = ", ".join(f"{part} ({count})" for part, count in parts.items())
        log.info("started afresh, as the weights do not hold them: %s", shown)
    going_on = run.resume and last.is_file()
    if going_on:
        require_checkpoint(last, network, epochs=recipe.epochs)
    distiller = open_distiller(recipe, data.preprocessing, classes=len(data.classes))
    task = _task(recipe, data)
    history = History(folder)
    checkpoints = Checkpoints(
        folder, steps=run.checkpoint_steps, monitor=f"val_{task.monitor}", mode=task.mode
    )
    trainer = make_trainer(recipe, run, folder, history, checkpoints)
    device = trainer.strategy.root_device
    use_kernels_(network, run.kernels, device.type)
    if channels_last(recipe, device):
        network = network.to(memory_format=torch.channels_last)
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
    module = TrainingModule(
        network,
        task,
        recipe,
        steps=len(loader),
        distiller=distiller,
        rounding=open_rounding(recipe, network),
    )
    if trainer.is_global_zero:
        write_whole(folder / "recipe.json", recipe.model_dump_json(indent=1))
    commit = current_commit()  # a run outlives what is committed meanwhile
    start = time.perf_counter()
    with one_line(recipe), gentle_interrupt(checkpoints), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice is not about this program's user
        trainer.fit(
            module,
            loader,
            _validation(data, recipe, trainer),
            ckpt_path=str(last) if going_on else None,
            weights_only=True,
        )
    seconds = time.perf_counter() - start
    summary = summarize(recipe, run.command, data, history, task, network, seconds, commit)
    if trainer.is_global_zero:
        keep_best(folder, module, recipe, data, options, summary)
        network = network.to(trainer.strategy.root_device)  # Lightning has left it on the CPU
        write_report(folder, network, task, data, recipe, history.rows, limit=run.limit)
        if run.tensorboard:
            add_report(folder, epoch=trainer.current_epoch)
        write_whole(folder / "summary.json", json.dumps(summary, indent=1) + "\n")  # last: done
    return summary


def _prepare(folder: Path, last: Path, *, resume: bool) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write-{os.getpid()}"
        probe.touch()
        probe.unlink()
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
        extra=tuple(map(Path, recipe.data.extra)),
    )


def _network(
    recipe: Recipe, data: TrainingData
) -> tuple[nn.Module, dict[str, Any], tuple[str, ...]]:
    """The network for the data's classes, its options, and what the given weights did not fill."""
    row = entry(recipe.model)
    classes = len(data.classes) + (recipe.task == "detection")
    options = {"num_classes": classes, **recipe.options}
    if recipe.weights is None:
        return row.build(**options), options, ()
    loaded = load_network(recipe.weights, num_classes=classes)
    if loaded.name == recipe.model:
        options = loaded.options | options
        if options == loaded.options:
            return loaded.network.train(), options, loaded.fresh
    network = row.build(**options)
    return network, options, _take_backbone(network, loaded.network, recipe, source=recipe.weights)


def _take_backbone(
    network: nn.Module, given_network: nn.Module, recipe: Recipe, *, source: str
) -> tuple[str, ...]:
    """Copy what has the same name and shape, such as a classifier's backbone."""
    own, given = network.state_dict(), given_network.state_dict()
    same = {k for k, v in own.items() if k in given and given[k].shape == v.shape}
    inner = {k for k in own if k in given and k.startswith("backbone.")}
    if not inner or not inner <= same:
        why = "is of another width" if inner else "has nothing that fits"
        raise UserError(
            f"{source}: the backbone {why} ({recipe.model} is wanted); give other weights, "
            "or start afresh with --set weights=null"
        )
    for name in same:
        own[name].copy_(given[name])
    return tuple(sorted(set(own) - same))


def _task(recipe: Recipe, data: TrainingData) -> TrainingTask:
    classes = len(data.classes)
    weights = recipe.loss.class_weights
    factors: Sequence[float] | None = None
    if weights == "inverse-log":
        factors = class_weights(data.class_counts()).tolist()
    elif not isinstance(weights, str):
        factors = weights
        if len(factors) != classes:
            raise UserError(
                f"loss.class_weights: {len(factors)} factors but {classes} classes "
                f"({', '.join(data.classes[:5])} ...); give one per class"
            )
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

        return DetectionTraining(data.classes, match_threshold=recipe.loss.match_iou)
    if recipe.task == "multilabel":
        from espnetv2.tasks.multilabel import MultiLabelTraining

        return MultiLabelTraining(classes)
    raise UserError(f"task {recipe.task} is not trained from pictures")


def _validation(data: TrainingData, recipe: Recipe, trainer: L.Trainer) -> DataLoader[Any]:
    share = ShareOf(data.val, rank=trainer.global_rank, world=trainer.world_size)
    return DataLoader(
        share,
        batch_size=recipe.data.batch_size,
        collate_fn=data.collate,
        num_workers=recipe.data.workers,
        worker_init_fn=leave_interrupts_to_the_main_process,
    )
