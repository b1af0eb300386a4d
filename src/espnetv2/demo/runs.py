"""Runs of `espnetv2 train` under the folder that the command line names. Imports no torch."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from espnetv2.errors import UserError
from espnetv2.models.catalog import entry

FILE = "model.safetensors"
MOST = 100
"""Runs that are listed, the newest."""


@dataclass(frozen=True)
class Run:
    """One folder.

    Attributes:
        name: Of the folder; requests name the run by it.
        file: Its weights.
        summary: Of `summary.json`; empty where there is none.
        history: Columns of `history.csv`; None where a value lacks.
    """

    name: str
    file: Path
    summary: dict[str, Any]
    history: dict[str, list[float | None]]


def find_runs(folder: Path) -> list[Run]:
    """The runs in a folder, or the folder itself if it is one; the newest first.

    Raises:
        UserError: There is no such folder.
    """
    return [
        Run(name, file, _summary(file.parent), _history(file.parent))
        for name, file in find_files(folder).items()
    ]


def find_files(folder: Path) -> dict[str, Path]:
    """Weights by the name of the run's folder, without reading any.

    Raises:
        UserError: There is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name one that `espnetv2 train --out` has made")
    places = [folder] if (folder / FILE).is_file() else sorted(folder.iterdir())
    files = [place / FILE for place in places if (place / FILE).is_file()]
    files.sort(key=lambda file: -file.stat().st_mtime)
    return {file.parent.resolve().name: file for file in files[:MOST]}


def task_of(file: Path) -> tuple[str, str]:
    """Network and task of a weights file, read from its header alone.

    Raises:
        UserError: It is no file of this package.
    """
    try:
        stand = file.stat()
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from error
    return _task_of(file, stand.st_mtime_ns, stand.st_size)


@lru_cache(maxsize=4 * MOST)
def _task_of(file: Path, changed: int, size: int) -> tuple[str, str]:
    """The same, read again only when the file has changed."""
    try:
        with safe_open(file, framework="np") as content:
            header = json.loads((content.metadata() or {})["header"])
        model = str(header["model"])
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise UserError(f"{file}: not a weights file of this package; train or convert") from error
    return model, entry(model).task


def _summary(folder: Path) -> dict[str, Any]:
    """What the page shows of it; nothing of the machine."""
    try:
        values = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    wanted = ("model", "task", "data", "split", "metrics", "best_epoch", "epochs", "classes")
    return {key: values.get(key) for key in (*wanted, "parameters", "seconds", "device", "commit")}


def _history(folder: Path) -> dict[str, list[float | None]]:
    try:
        with (folder / "history.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, csv.Error, UnicodeDecodeError):
        return {}
    columns = list(rows[0]) if rows else []
    return {name: [_number(row.get(name)) for row in rows] for name in columns if name}


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
