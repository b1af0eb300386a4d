"""What a run shows when it ends: curves, who was taken for whom, a sheet of predictions."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from espnetv2.data.training_sets import TrainingData
from espnetv2.errors import UserError
from espnetv2.tasks.training import TrainingTask
from espnetv2.training import figures
from espnetv2.training.figures import Curve
from espnetv2.training.findings import Findings, find
from espnetv2.training.recipe import Recipe
from espnetv2.training.saving import write_whole
from espnetv2.training.sheet import choose, sheet

log = logging.getLogger("espnetv2")

Rows = Sequence[Mapping[str, Any]]


def write_report(
    folder: Path,
    network: nn.Module,
    task: TrainingTask,
    data: TrainingData,
    recipe: Recipe,
    rows: Rows,
    *,
    limit: int | None,
) -> None:
    """Write `<folder>/report/` of a finished run; walks the validation split once.

    `curves.png`, `report.json` (the numbers), `predictions.png`, `classes.png`, and
    `confusion.png` where classes exclude each other. Charts need the extra `plots`. What cannot
    be written is said in one line and left out: a report never ends a run.

    Args:
        folder: Of the run.
        network: With the weights to show, on the device to use.
        task: Names the score that selected the weights.
        data: Whose validation split is shown.
        recipe: That was trained.
        rows: Of the history.
        limit: Batches of the walk, at most.
    """
    target = folder / "report"
    title = f"{recipe.model} on {data.format}"
    plots = _plots(target)
    if plots and rows:
        with going_on(target / "curves.png"):
            figure = figures.curves(rows, _picture_curves(task), title=title)
            figures.save(figure, target / "curves.png")
    findings = None
    with going_on(target / "report.json"):
        findings = find(network, data, recipe, limit=limit)
        write_whole(target / "report.json", _numbers(findings, data, recipe))
    if findings is None:
        return
    with going_on(target / "predictions.png"):
        chosen = choose(findings.pictures, findings.wrong)
        heading = f"{title}, split {recipe.data.val_split}: {_chosen(findings, len(chosen))}"
        picture = sheet(network, data, recipe.task, chosen, title=heading)
        picture.save(target / "predictions.png")
    if plots:
        _charts(findings, data.classes, target)


def write_language_report(folder: Path, rows: Rows, *, title: str) -> None:
    """Write `<folder>/report/curves.png` of a finished language model; never ends a run."""
    target = folder / "report"
    if not _plots(target) or not rows:
        return
    columns = {"train": "train_perplexity", "val": "val_perplexity"}
    charts = [
        Curve("perplexity", columns, best="min", steep=True),
        Curve("learning rate", {"rate": "rate"}, from_zero=True),
    ]
    with going_on(target / "curves.png"):
        figures.save(figures.curves(rows, charts, title=title), target / "curves.png")


def _picture_curves(task: TrainingTask) -> list[Curve]:
    return [
        Curve("loss", {"train": "loss", "val": "val_loss"}, steep=True),
        Curve(f"val {task.monitor}, %", {"val": f"val_{task.monitor}"}, best=task.mode),
        Curve("learning rate", {"rate": "rate"}, from_zero=True),
    ]


def _charts(findings: Findings, classes: Sequence[str], target: Path) -> None:
    unit = findings.unit
    with going_on(target / "classes.png"):
        bars = figures.class_bars(
            findings.per_class, findings.counts, classes, measure=findings.measure, unit=unit
        )
        figures.save(bars, target / "classes.png")
    if findings.confusion is None:
        return
    with going_on(target / "confusion.png"):
        matrix = figures.confusion(findings.confusion, classes, unit=unit)
        figures.save(matrix, target / "confusion.png")


def _plots(target: Path) -> bool:
    """Make the folder; whether charts can be drawn."""
    with going_on(target):
        target.mkdir(parents=True, exist_ok=True)
    try:
        figures.require_plots()
    except UserError as error:
        log.warning("no charts in %s: %s", target, error)
        return False
    return True


@contextmanager
def going_on(path: Path) -> Iterator[None]:
    """Say in one line what could not be written, and why, and go on."""
    try:
        yield
    except Exception as error:  # the run is done and saved; nothing of the report may undo that
        reason = " ".join(str(error).split()) or "no reason given"
        log.warning("%s could not be made (%s: %s)", path, type(error).__name__, reason)


def _chosen(findings: Findings, shown: int) -> str:
    if findings.wrong is None:
        return f"{shown} of {findings.pictures} pictures"
    wrong = int(findings.wrong.sum())
    return f"{wrong} of {findings.pictures} wrong; some of these first, then right ones"


def _numbers(findings: Findings, data: TrainingData, recipe: Recipe) -> str:
    """JSON, a line a field: matrices are long."""
    measure = findings.measure.lower()
    fields: dict[str, Any] = {
        "model": recipe.model,
        "task": recipe.task,
        "split": recipe.data.val_split,
        "pictures": findings.pictures,
        "scores": {name: _plain(value) for name, value in findings.scores.items()},
        "per_class": [
            {"class": name, measure: _plain(100 * value), findings.unit: int(count)}
            for name, value, count in zip(
                data.classes, findings.per_class, findings.counts, strict=True
            )
        ],
    }
    if findings.confusion is not None:
        fields["confusion"] = np.asarray(findings.confusion).tolist()
    lines = ",\n".join(f'"{key}": {json.dumps(value)}' for key, value in fields.items())
    return f"{{\n{lines}\n}}\n"


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 4)
