"""The Lightning trainer of a recipe: precision, processes, checkpoints."""

from __future__ import annotations

import logging
import os
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import lightning.pytorch as L
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import EarlyStopping, WeightAveraging
from torch import Tensor

from espnetv2.errors import UserError
from espnetv2.training.callbacks import Checkpoints, History
from espnetv2.training.recipe import Recipe
from espnetv2.training.tensorboard import TensorBoard


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
        tensorboard: Whether to write `tensorboard/` too.
        kernels: "reference", "fused" or "auto"; see `layers.eesp.use_kernels_`.
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
    tensorboard: bool = False
    kernels: str = "auto"
    command: str = ""


def require_device(run: Run) -> None:
    """Whether the machine has what the run wants.

    Raises:
        UserError: No such device, or fewer of it.
    """
    if run.device not in ("auto", "cpu", "gpu"):
        raise UserError(f"--device {run.device}: there is no such device; use auto, cpu or gpu")
    if run.device == "cpu":
        return
    gpus = torch.cuda.device_count() or int(torch.backends.mps.is_available())
    if run.device == "gpu" and not gpus:
        raise UserError("--device gpu: there is none here; use cpu")
    if gpus and run.devices > gpus:
        raise UserError(f"--devices {run.devices}: there are {gpus} GPUs here; use at most as many")


def make_trainer(
    recipe: Recipe, run: Run, folder: Path, history: History, checkpoints: Checkpoints
) -> L.Trainer:
    """Lightning's trainer with the recipe's precision and our checkpoints."""
    callbacks: list[L.Callback] = [
        history,
    ]
    if run.tensorboard:
        callbacks.append(TensorBoard(folder, lambda: history.rows))
    if recipe.ema is not None:
        callbacks.append(WeightAveraging(avg_fn=partial(moving_average, recipe.ema)))
    if recipe.early_stopping is not None:
        callbacks.append(
            EarlyStopping(
                checkpoints.monitor, patience=recipe.early_stopping, mode=checkpoints.mode
            )
        )
    callbacks.append(checkpoints)  # last, so that it saves what the others have done
    _join_after_restart("gloo" if run.device == "cpu" or not torch.cuda.is_available() else "nccl")
    # torchrun says how many processes there are, here and in all
    world, local = (int(os.environ.get(name, "0")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    devices = local or run.devices
    warnings.filterwarnings("ignore", module="lightning")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return L.Trainer(
        accelerator=run.device,
        devices=devices,
        num_nodes=world // local if local else 1,
        strategy="ddp" if devices > 1 or world > 1 else "auto",
        max_epochs=recipe.epochs,
        precision=recipe.precision,
        accumulate_grad_batches=recipe.accumulate,
        gradient_clip_val=recipe.clip,
        limit_val_batches=run.limit,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        callbacks=callbacks,
        logger=False,
        enable_progress_bar=run.progress,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
    )


def moving_average(decay: float, average: Tensor, new: Tensor, updates: Tensor | int) -> Tensor:
    """The next moving average of a weight; a young one forgets its random start sooner.

    >>> float(moving_average(0.99, torch.tensor(0.0), torch.tensor(1.0), 8))
    0.5
    """
    decay = min(decay, (1 + float(updates)) / (10 + float(updates)))
    return average * decay + new * (1 - decay)


def _join_after_restart(backend: str) -> None:
    """Meet the other processes where those before the restart left no trace.

    torchrun keeps one store over its restarts, with the addresses of processes that have died.
    """
    env = os.environ
    restarts = env.get("TORCHELASTIC_RESTART_COUNT", "0")
    one_node = env.get("GROUP_WORLD_SIZE") == "1"  # several nodes may have counted differently
    shared = env.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if restarts == "0" or not one_node or not shared or dist.is_initialized():
        return
    address = (env["MASTER_ADDR"], int(env["MASTER_PORT"]))
    store = dist.TCPStore(*address, is_master=False)  # type: ignore[attr-defined]
    fresh = dist.PrefixStore(f"espnetv2/restart{restarts}", store)  # type: ignore[attr-defined]
    if backend == "nccl":
        torch.cuda.set_device(int(env["LOCAL_RANK"]))
    dist.init_process_group(
        backend,
        store=fresh,
        rank=int(env["RANK"]),
        world_size=int(env["WORLD_SIZE"]),
    )
