"""What --resume may go on with: a run of the same settings, files that can be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from espnetv2.errors import UserError
from espnetv2.training.agreement import leaves
from espnetv2.training.recipe import Recipe, parse

_FREE = ("epochs", "data.workers", "expect")
"""What changes nothing of the batches that were or will be trained."""


def finished(folder: Path, recipe: Recipe) -> dict[str, Any] | None:
    """The summary of a stage that has run for as long as the recipe asks.

    Raises:
        UserError: The summary is damaged.
    """
    file = folder / "summary.json"
    if not file.is_file():
        return None
    summary = read_json(file, mend="delete it and --resume makes it anew")
    return summary if summary.get("epochs", 0) >= recipe.epochs else None


def require_same(folder: Path, recipe: Recipe, *, free: tuple[str, ...] = ()) -> None:
    """Refuse to go on with a run under another recipe.

    Args:
        free: Fields that may differ too.

    Raises:
        UserError: Names the first field that differs, and both values.
    """
    file = folder / "recipe.json"
    if not file.is_file() or not (folder / "last.ckpt").is_file():
        return
    values = read_json(file, mend="choose another --out")
    before, now = leaves(parse(values, source=str(file))), leaves(recipe)
    for name in {**before, **now}:
        if name not in (*_FREE, *free) and before.get(name) != now.get(name):
            raise UserError(
                f"{folder} was begun with {name}={before.get(name)}, not {now.get(name)}; "
                "a run is resumed with its own settings"
            )


def require_checkpoint(path: Path, network: nn.Module, *, epochs: int) -> None:
    """Read a checkpoint before anything is changed.

    Raises:
        UserError: It is damaged, of other data or another network, or further than wanted.
    """
    try:
        kept = torch.load(path, map_location="cpu", weights_only=True)
        given = {k: v.shape for k, v in kept["state_dict"].items() if k.startswith("network.")}
        epoch = kept["epoch"]
    except Exception as error:  # torch raises a dozen kinds
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
        raise UserError(
            f"{path} is damaged ({first}); put a copy in its place or choose another --out"
        ) from error
    if given != {f"network.{k}": v.shape for k, v in network.state_dict().items()}:
        raise UserError(
            f"{path} holds a network of another form, such as of data with other classes; "
            "a run is resumed with its own data"
        )
    if epoch >= epochs:
        raise UserError(f"{path} has reached epoch {epoch + 1}; epochs={epochs} must not be fewer")


def read_json(file: Path, *, mend: str) -> dict[str, Any]:
    """The values of a file that a run wrote.

    Raises:
        UserError: It is damaged; says how to mend it.
    """
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} is damaged ({error}); {mend}") from error
    if not isinstance(values, dict):
        raise UserError(f"{file} is damaged (no fields); {mend}")
    return values
