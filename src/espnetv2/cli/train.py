"""`espnetv2 train`: a recipe, a folder, one command."""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from espnetv2.cli.notice import say_kernels
from espnetv2.errors import UserError


def train(
    recipe: Annotated[str, typer.Argument(help="Name of a shipped recipe, or a YAML file.")],
    data: Annotated[Path, typer.Option(help="Folder of the data set.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; default runs/RECIPE.")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="FIELD=VALUE, such as epochs=10; repeatable.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Start from a published name or a weights file.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the run in --out.")] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Batches an epoch, for a quick trial.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or gpu.")] = "auto",
    devices: Annotated[int, typer.Option(min=1, help="Processes, or GPUs.")] = 1,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of a process.")] = None,
    kernels: Annotated[
        str, typer.Option(help="Of EESP units and norms: reference, fused or auto.")
    ] = "auto",
    checkpoint_steps: Annotated[
        int, typer.Option(min=1, help="Steps between checkpoints within an epoch.")
    ] = 200,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out pictures that cannot be read.")
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write curves and pictures for TensorBoard too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Train a network on a folder; stop and go on at any time with --resume.

    The folder of the run gets the history of the scores (history.csv), checkpoints, the best
    weights (model.safetensors, which `espnetv2 predict` takes), a summary (summary.json), and
    charts and sample predictions (report/).
    """
    from espnetv2.training.recipe import load_recipe

    chosen = load_recipe(recipe, changes=changes, weights=weights)
    if not data.is_dir():
        raise UserError(f"--data {data} is not a folder; give the folder of the data set")
    folder = out or Path("runs") / Path(recipe).stem
    logging.basicConfig(stream=sys.stderr, format="%(message)s")
    # of several processes (torchrun's, Lightning's) the first one speaks
    first = all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK"))
    logging.getLogger("espnetv2").setLevel(logging.INFO if first else logging.ERROR)

    import torch

    from espnetv2.training.fit import train as fit
    from espnetv2.training.trainer import Run

    if threads is not None:
        torch.set_num_threads(threads)
    on_gpu = device != "cpu" and torch.cuda.is_available()
    say_kernels(kernels, "cuda" if on_gpu else "cpu", aloud=first)
    run = Run(
        data=data,
        out=folder,
        resume=resume,
        limit=limit,
        device=device,
        devices=devices,
        checkpoint_steps=checkpoint_steps,
        progress=sys.stderr.isatty(),
        skip_bad=skip_bad,
        tensorboard=tensorboard,
        kernels=kernels,
        command=shlex.join(["espnetv2", *sys.argv[1:]]).replace(" --resume", ""),
    )
    summary = fit(chosen, run)
    if first and as_json:
        print(json.dumps(summary))
    elif first:
        print(_sentence(summary, folder))


def _sentence(summary: dict[str, Any], folder: Path) -> str:
    scores = ", ".join(f"{name} {value:.2f}" for name, value in summary["metrics"].items())
    return (
        f"{summary['model']} on {summary['data']} ({summary['split']}): {scores}; best weights in "
        f"{folder / 'model.safetensors'}, everything else in {folder}"
    )
