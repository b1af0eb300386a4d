"""What stays of a run: the best weights as a file of ours, and its summary."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from espnetv2.data.training_sets import TrainingData
from espnetv2.tasks.training import TrainingTask
from espnetv2.training.callbacks import History
from espnetv2.training.module import TrainingModule
from espnetv2.training.recipe import Recipe
from espnetv2.weights.files import Header, write_safetensors


def keep_best(
    folder: Path,
    module: TrainingModule,
    recipe: Recipe,
    data: TrainingData,
    options: dict[str, Any],
    summary: dict[str, Any],
) -> None:
    """Put the best weights back and write them as a file that `espnetv2 predict` takes."""
    best = folder / "best.ckpt"
    if best.is_file():
        state = torch.load(best, map_location="cpu", weights_only=False)["state_dict"]
        module.load_state_dict(state)
    header = Header(
        model=recipe.model,
        options=options,
        classes=data.classes,
        palette=data.palette,
        preprocessing=data.preprocessing.to_json(),
        source={"name": recipe.model, "trained": summary["commit"], "metrics": summary["metrics"]},
        multi_label=recipe.task == "multilabel",
    )
    write_safetensors(module.network.state_dict(), header, folder / "model.safetensors")


def summarize(
    recipe: Recipe,
    command: str,
    data: TrainingData,
    history: History,
    task: TrainingTask,
    network: nn.Module,
    seconds: float,
    commit: str,
) -> dict[str, Any]:
    """What `summary.json` holds: the best epoch's scores, and how they came to be."""
    key = f"val_{task.monitor}"
    pick = max if task.mode == "max" else min
    scored = [row for row in history.rows if key in row]
    best = pick(scored, key=lambda row: row[key]) if scored else {}
    return {
        "model": recipe.model,
        "task": recipe.task,
        "data": data.format,
        "split": recipe.data.val_split,
        "metrics": {k.removeprefix("val_"): v for k, v in best.items() if k.startswith("val_")},
        "best_epoch": best.get("epoch"),
        "epochs": recipe.epochs,
        "classes": len(data.classes),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "command": command,
        "commit": commit,
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


def current_commit() -> str:
    """Of the folder that the command runs in; empty outside of a repository."""
    done = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False, cwd=Path.cwd()
    )
    return done.stdout.strip()
