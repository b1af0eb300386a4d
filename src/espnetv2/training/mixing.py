"""Mixing pictures of a batch: mixup and cutmix."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from espnetv2.tasks.training import ClassificationTraining, TrainingTask
from espnetv2.training.recipe import Loss


def mix(images: Tensor, targets: Any, *, loss: Loss, classes: int) -> tuple[Tensor, Any]:
    """Blend each picture with another of the batch, or paste a rectangle of it; or neither.

    Targets become distributions over classes. If both are wanted, a coin decides per batch.

    Shape: images (B, 3, H, W), targets (B,) int64 -> images, targets (B, classes) float
    """
    if not loss.mixup and not loss.cutmix:
        return images, targets
    one_hot = F.one_hot(targets, classes).to(images.dtype)
    paste = bool(loss.cutmix) and (not loss.mixup or bool(torch.rand(()) < 0.5))
    strength = loss.cutmix if paste else loss.mixup
    share = float(torch.distributions.Beta(strength, strength).sample())
    other = torch.randperm(len(images), device=images.device)
    if paste:
        top, bottom, left, right = _rectangle(images.shape[-2], images.shape[-1], 1 - share)
        mixed = images.clone()
        mixed[..., top:bottom, left:right] = images[other][..., top:bottom, left:right]
        area = (bottom - top) * (right - left)
        share = 1 - area / (images.shape[-2] * images.shape[-1])
    else:
        mixed = share * images + (1 - share) * images[other]
    return mixed, share * one_hot + (1 - share) * one_hot[other]


def per_weight(loss: Tensor, targets: Tensor, task: TrainingTask) -> Tensor:
    """The loss of mixed targets as a mean over their class weights, as that of plain ones is.

    torch divides by the weights' sum only where a target is one class, else by the batch.

    Shape: (), targets (B, classes) float -> ()
    """
    if not isinstance(task, ClassificationTraining) or task.class_weights is None:
        return loss
    return loss * len(targets) / (targets @ task.class_weights.to(targets)).sum()


def _rectangle(height: int, width: int, area: float) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) of about `area` of the picture, cut at its borders."""
    half_height, half_width = height * area**0.5 / 2, width * area**0.5 / 2
    y, x = float(torch.rand(())) * height, float(torch.rand(())) * width
    return (
        int(max(0, y - half_height)),
        int(min(height, y + half_height)),
        int(max(0, x - half_width)),
        int(min(width, x + half_width)),
    )
