"""The Lightning module around any task with pictures."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor, nn

from espnetv2.tasks.training import TrainingTask
from espnetv2.training.distillation import Distiller
from espnetv2.training.loader import TrainingLoader
from espnetv2.training.mishaps import LossError
from espnetv2.training.mixing import mix, per_weight
from espnetv2.training.quantization import Rounding
from espnetv2.training.recipe import Recipe


class TrainingModule(L.LightningModule):
    """One network, one task, one recipe.

    The learning rate is set before every step as a pure function of the progress, and the random
    numbers of a step (dropout, mixing) are seeded by its number: nothing of either needs to be
    stored for an exact resume.

    Args:
        steps: Optimiser steps of an epoch, for schedules that move within it.
        distiller: The teacher, if any.
        rounding: For int8, if asked for.
    """

    def __init__(
        self,
        network: nn.Module,
        task: TrainingTask,
        recipe: Recipe,
        *,
        steps: int,
        distiller: Distiller | None = None,
        rounding: Rounding | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.task = task
        self.recipe = recipe
        self.steps = steps
        self.distiller = distiller
        self.rounding = rounding
        self.valid: Any = task.metrics()
        if recipe.freeze_norm != "no":  # before Lightning tells DDP what has gradients
            for norm in norms(network):
                norm.requires_grad_(False)

    def training_step(self, batch: Any, index: int) -> Tensor:
        """Loss of one batch."""
        images, targets = batch
        if channels_last(self.recipe, images.device):
            images = images.contiguous(memory_format=torch.channels_last)
        images, targets = mix(
            images, targets, loss=self.recipe.loss, classes=getattr(self.task, "num_classes", 0)
        )
        with self._rounded(watch=self.current_epoch < self._watched):
            loss, outputs = self.task.loss(self._stepping(len(images)), images, targets)
        if self.recipe.loss.mixup or self.recipe.loss.cutmix:
            loss = per_weight(loss, targets, self.task)
        if self.distiller is not None:
            loss = self.distiller.loss(loss, outputs, images, targets)
        if not torch.isfinite(loss):
            last = Path(self.trainer.default_root_dir) / "last.ckpt"
            kept = f"the last good checkpoint is {last}" if last.is_file() else "nothing was saved"
            raise LossError(
                f"the loss is {loss.item()} at epoch {self.current_epoch}, batch {index}; {kept}: "
                "start again with a lower rate or with clip"
            )
        return loss

    def on_train_batch_start(self, batch: Any, index: int) -> None:
        """Set the rate and the random numbers of this step."""
        schedule = self.recipe.schedule
        epoch: float = self.current_epoch
        if schedule.smooth:
            epoch += index / max(1, self.steps)
        rate = schedule.at(epoch, self.recipe.epochs)
        optimizer: Any = self.optimizers()
        for group in optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        step = self.current_epoch * 1_000_003 + index
        torch.manual_seed((self.recipe.seed * 7919 + step) * 64 + self.global_rank)

    def train(self, mode: bool = True) -> TrainingModule:
        """Switch modes; frozen norms never go to training."""
        super().train(mode)
        if self.recipe.freeze_norm == "frozen" or self.rounding is not None:
            for norm in norms(self.network):
                norm.eval()
        return self

    def on_train_epoch_start(self) -> None:
        """Lightning gives a loader its place back only in the middle of an epoch."""
        loader = self.trainer.train_dataloader
        if isinstance(loader, TrainingLoader) and loader.epoch != self.current_epoch:
            loader.epoch, loader.done = self.current_epoch, 0

    def on_train_start(self) -> None:
        """Into training mode, also where a run goes on in the middle of an epoch."""
        self.train()

    def validation_step(self, batch: Any, index: int) -> None:
        """Count one batch; loss beside it."""
        images, targets = batch
        with self._rounded(watch=False):
            loss, outputs = self.task.loss(self.network, images, targets)
        self.task.update(self.valid, outputs, targets)
        self.log("val_loss", loss, on_epoch=True, sync_dist=True, batch_size=len(images))

    def on_validation_epoch_end(self) -> None:
        """Scores over all processes."""
        for name, score in self.task.scores(self.valid).items():
            # the metric has gathered over processes already: every one logs the same value
            self.log(f"val_{name}", score, rank_zero_only=False)
        self.valid.reset()

    def _rounded(self, *, watch: bool) -> AbstractContextManager[None]:
        if self.rounding is None:
            return nullcontext()
        return self.rounding.around(self.network, watch=watch)

    def _stepping(self, batch: int) -> nn.Module:
        """The network, compiled if asked for; not for an epoch's rest, which compiles anew."""
        whole = batch == self.recipe.data.batch_size
        return self._compiled if whole and self.recipe.compile != "no" else self.network

    @cached_property
    def _compiled(self) -> Any:
        """Shares the network's weights and is no part of this module."""
        return torch.compile(self.network, mode=self.recipe.compile)

    @property
    def _watched(self) -> int:
        """Epochs in which ranges move."""
        return math.ceil(self.recipe.quantize.watch * self.recipe.epochs)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """One optimiser; groups by place and by whether they decay."""
        return make_optimizer(self.network, self.recipe)


def channels_last(recipe: Recipe, device: torch.device) -> bool:
    """Whether maps have their channels last in memory: where the recipe says nothing, on a GPU."""
    return device.type == "cuda" if recipe.channels_last is None else recipe.channels_last


def norms(network: nn.Module) -> list[nn.Module]:
    """All batch norms of a network."""
    return [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser; every group has a `factor` on the scheduled rate."""
    spec = recipe.optimizer
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            inner = name.startswith(("backbone.", "encoder."))
            decays = spec.decay_norms or parameter.dim() > 1
            groups.setdefault((inner, decays), []).append(parameter)
    parameters = [
        {
            "params": members,
            "factor": 1.0 if inner else spec.head_factor,
            "weight_decay": spec.weight_decay if decays else 0.0,
        }
        for (inner, decays), members in groups.items()
    ]
    rate = recipe.schedule.at(0, recipe.epochs)
    if spec.name == "sgd":
        return torch.optim.SGD(parameters, lr=rate, momentum=spec.momentum, nesterov=spec.nesterov)
    kind = torch.optim.Adam if spec.name == "adam" else torch.optim.AdamW
    return kind(parameters, lr=rate, betas=spec.betas)
