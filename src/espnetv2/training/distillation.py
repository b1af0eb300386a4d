"""Distillation: beside the truth, a network learns what a larger one says of the same pictures."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from espnetv2.data.preprocess import Preprocessing
from espnetv2.errors import UserError, unknown
from espnetv2.extras import require
from espnetv2.tasks.training import IGNORE
from espnetv2.training.recipe import Distill, Recipe
from espnetv2.weights.files import read_official
from espnetv2.weights.load import load_network, load_strictly


class Distiller:
    """A teacher and how much its word counts.

    No module: the teacher is in no checkpoint, optimiser or moving average, and never in training
    mode. It is a fixed function of the batch, so that a resumed run hears the same from it.

    Args:
        teacher: Maps a batch to logits of the student's classes.
        task: "classification", "multilabel" or "segmentation".
        ours: How the batch was preprocessed.
        theirs: How the teacher wants it; its size is not looked at.
    """

    def __init__(
        self,
        teacher: nn.Module,
        settings: Distill,
        *,
        task: str,
        ours: Preprocessing,
        theirs: Preprocessing,
    ) -> None:
        self.teacher = teacher.eval().requires_grad_(False)
        self.settings, self.task, self.ours, self.theirs = settings, task, ours, theirs
        self._device = torch.device("cpu")

    def __deepcopy__(self, memo: dict[int, Any]) -> Distiller:
        return self  # the moving average copies the module around it, and needs no second teacher

    def teach(self, images: Tensor) -> Tensor:
        """The teacher's logits for a batch of the student's.

        Shape: (B, 3, H, W) -> (B, classes) or (B, classes, h, w)
        """
        if images.device != self._device:
            self._device = images.device
            self.teacher.to(images.device)
        with torch.no_grad():
            pixels = pixels_of(images, self.ours)
            logits: Tensor = self.teacher(self.theirs.normalize(pixels) / self.theirs.divisor)
        return logits

    def loss(self, hard: Tensor, logits: Tensor, images: Tensor, targets: Tensor) -> Tensor:
        """(1 - weight) * hard + weight * T^2 * KL(teacher || student), both softened by T.

        Args:
            hard: Loss against the truth.
            logits: The student's for `images`.
        """
        soft = divergence(
            logits,
            self.teach(images),
            task=self.task,
            temperature=self.settings.temperature,
            targets=targets,
        )
        weight = self.settings.weight
        return (1 - weight) * hard + weight * soft


def divergence(
    logits: Tensor, taught: Tensor, *, task: str, temperature: float, targets: Tensor
) -> Tensor:
    """T^2 * KL(teacher || student) at temperature T, in float32; 0 where they agree.

    Classification: over the classes, mean over pictures. Multi-label: over yes and no of each
    class, which is binary cross-entropy with the teacher's sigmoid less that sigmoid's entropy;
    sum over classes, as the hard loss has it, mean over pictures. Segmentation: over the classes
    of each labelled pixel, mean over those; teacher's logits and labels are brought to the
    student's size.

    Shape: logits (B, C) or (B, C, h, w); taught alike, of any size; targets (B, H, W) of a
    segmentation, else not looked at
    """
    ours, theirs = logits.float() / temperature, taught.float() / temperature
    scale = temperature * temperature
    if task == "multilabel":
        sure = theirs.sigmoid()
        cross = F.binary_cross_entropy_with_logits(ours, sure, reduction="none")
        least = F.binary_cross_entropy_with_logits(theirs, sure, reduction="none")
        return scale * (cross - least).sum(1).mean()
    if task == "segmentation" and theirs.shape[-2:] != ours.shape[-2:]:
        theirs = F.interpolate(theirs, ours.shape[-2:], mode="bilinear", align_corners=False)
    pointwise = F.kl_div(
        ours.log_softmax(1), theirs.log_softmax(1), reduction="none", log_target=True
    ).sum(1)  # (B,) or (B, h, w)
    if task == "segmentation":
        if targets.shape[-2:] != ours.shape[-2:]:
            targets = F.interpolate(targets[:, None].float(), ours.shape[-2:], mode="nearest")[:, 0]
        labelled = targets != IGNORE
        # a batch without a single labelled pixel has no mean
        return scale * (pointwise * labelled).sum() / labelled.sum().clamp(min=1)
    return scale * pointwise.mean()


def pixels_of(images: Tensor, spec: Preprocessing) -> Tensor:
    """Undo a normalisation: RGB of 0-255 again, unrounded.

    Shape: (..., 3, H, W) -> the same
    """
    mean = torch.tensor(spec.mean, dtype=torch.float32, device=images.device)[:, None, None]
    std = torch.tensor(spec.std, dtype=torch.float32, device=images.device)[:, None, None]
    pixels = (images.float() * spec.divisor * std + mean) * spec.unit
    return pixels.flip(-3) if spec.order == "bgr" else pixels


def open_distiller(recipe: Recipe, ours: Preprocessing, *, classes: int) -> Distiller | None:
    """The teacher that a recipe names, or None if it names none.

    The random numbers of the run are left as they were.

    Args:
        ours: Preprocessing of the batches.
        classes: Of the data.

    Raises:
        UserError: No such teacher, weights that cannot be had, a teacher of another task, of
            another number of classes or for another size of picture.
    """
    settings = recipe.distill
    if settings.teacher is None:
        return None
    library, _, name = settings.teacher.partition(":")
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the libraries' remarks on their own names and weights
        if library in ("timm", "torchvision") and name:
            if recipe.task == "segmentation":
                raise UserError(
                    f"distill.teacher {settings.teacher} classifies whole pictures; a segmenter "
                    "learns from a segmenter of this package, by name or file"
                )
            make = _timm if library == "timm" else _torchvision
            teacher, theirs = make(name, settings.teacher_weights, classes)
        else:
            teacher, theirs = _own(settings.teacher, settings.teacher_weights, recipe.task)
    distiller = Distiller(teacher, settings, task=recipe.task, ours=ours, theirs=theirs)
    _check(distiller, ours.size or recipe.data.size, classes)
    return distiller


def _timm(name: str, file: str | None, classes: int) -> tuple[nn.Module, Preprocessing]:
    timm = require("timm", extra="timm")
    if not timm.is_model(name):
        raise unknown("timm model", name, timm.list_models())
    if file is not None:
        teacher = timm.create_model(name, pretrained=False, num_classes=classes)
        _fill(teacher, Path(file), classes)
    else:
        try:
            teacher = timm.create_model(name, pretrained=True)
        except Exception as error:  # its hub, its cache and its tags each fail in their own ways
            raise _not_had(f"timm:{name}", error) from error
    config = teacher.pretrained_cfg
    return teacher, Preprocessing(mean=tuple(config["mean"]), std=tuple(config["std"]))


def _torchvision(name: str, file: str | None, classes: int) -> tuple[nn.Module, Preprocessing]:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise unknown("torchvision model", name, known)
    weights = models.get_model_weights(name).DEFAULT
    if file is not None:
        teacher = models.get_model(name, weights=None, num_classes=classes)
        _fill(teacher, Path(file), classes)
    else:
        try:
            teacher = models.get_model(name, weights=weights)
        except Exception as error:  # no network, a hash that differs, a full disk
            raise _not_had(f"torchvision:{name}", error) from error
    wanted = weights.transforms()
    return teacher, Preprocessing(mean=tuple(wanted.mean), std=tuple(wanted.std))


def _own(name: str, file: str | None, task: str) -> tuple[nn.Module, Preprocessing]:
    loaded = load_network(file or name)
    if file is not None and loaded.name != name:
        raise UserError(
            f"distill.teacher_weights {file} is a {loaded.name}, not {name}; set distill.teacher "
            "to it, or give another file"
        )
    wanted = "classification" if task == "multilabel" else task
    if loaded.task != wanted:
        raise UserError(
            f"distill.teacher {loaded.name} is for {loaded.task}; the recipe needs one for {wanted}"
        )
    return loaded.network, loaded.preprocessing


def _fill(teacher: nn.Module, path: Path, classes: int) -> None:
    """Load a plain state dict strictly; a head of another size is said to be that."""
    if path.suffix == ".safetensors":
        try:
            state = load_file(path)
        except (SafetensorError, OSError) as error:
            raise UserError(f"distill.teacher_weights {path} cannot be read ({error})") from error
    else:
        state = read_official(path)
    own = teacher.state_dict()
    odd = [k for k, v in own.items() if k in state and state[k].shape != v.shape]
    if odd and all(len(own[k]) == classes and own[k][0].shape == state[k][0].shape for k in odd):
        raise _other_classes(str(path), len(state[odd[0]]), classes)
    load_strictly(teacher, state, source=str(path))


def _check(distiller: Distiller, size: tuple[int, int], classes: int) -> None:
    """Show the teacher one picture: it must take the size and know the classes."""
    name = str(distiller.settings.teacher)
    try:
        logits = distiller.teach(torch.zeros(1, 3, *size))
    except (RuntimeError, AssertionError, ValueError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"distill.teacher {name} does not take pictures of {size[0]}x{size[1]} "
            f"({first[:120]}); set data.size to its own, or choose another teacher"
        ) from error
    if logits.shape[1] != classes:
        raise _other_classes(name, logits.shape[1], classes)


def _other_classes(name: str, found: int, wanted: int) -> UserError:
    return UserError(
        f"the teacher {name} has {found} classes, but the data has {wanted}; train a teacher on "
        "this data first and give its file as distill.teacher_weights"
    )


def _not_had(name: str, error: Exception) -> UserError:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return UserError(
        f"the weights of {name} cannot be had ({first[:160]}); connect to the network, or give a "
        "file as distill.teacher_weights"
    )
