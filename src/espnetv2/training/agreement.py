"""What the fields of a recipe must agree on: its task, its network, what a task has at all."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from espnetv2.errors import UserError, unknown
from espnetv2.models.catalog import Entry, entry

if TYPE_CHECKING:
    from espnetv2.training.recipe import Recipe

_FOR_LANGUAGE = (
    *("task", "model", "weights", "epochs", "seed", "precision", "expect"),
    *("data.format", "data.batch_size"),
    *("data.size", "data.workers"),  # without effect, but no way of training either
)
_INSTEAD = {
    "schedule": "language.rate",
    "optimizer": "language.rate and language.weight_decay",
    "loss": "language.dropout, language.alpha and language.beta",
    "clip": "language.clip",
    "ema": "language.trigger, which begins to average weights",
    "options": "the models eru_lm_7m and eru_lm_15m",
    "precision": "32-true and bf16-mixed",
    "data": "data.batch_size",
}

_LOSSES = {
    "mixup": ("classification",),
    "cutmix": ("classification",),
    "label_smoothing": ("classification", "segmentation"),
    "class_weights": ("classification", "segmentation"),
    "auxiliary": ("segmentation",),
    "match_iou": ("detection",),
}
"""Tasks whose loss has such a part."""


def require_agreement(recipe: Recipe, source: str) -> None:
    """Refuse a network of another task, options it does not have, and what would do nothing.

    Raises:
        UserError: Names the field and how to mend it.
    """
    if recipe.distill.teacher is not None and recipe.task in ("detection", "language"):
        raise UserError(
            f"{source}: distill.teacher: only classification, multilabel and segmentation learn "
            f"from a teacher, not {recipe.task}; leave it out"
        )
    if recipe.quantize.to != "float" and recipe.task == "language":
        raise UserError(f"{source}: quantize.to: language models stay in float; leave it out")
    if recipe.quantize.to != "float" and recipe.compile != "no":
        raise UserError(
            f"{source}: compile: rounding for int8 looks into the network, which compiled code "
            "does not allow; leave one of them out"
        )
    row = entry(recipe.model)
    wanted = "classification" if recipe.task == "multilabel" else recipe.task
    if row.task != wanted:
        raise UserError(
            f"{source}: model: {recipe.model} is for {row.task}, not {recipe.task}; "
            "`espnetv2 models` lists those that are"
        )
    if recipe.task == "language":
        _require_language(recipe, source)
    for name, tasks in _LOSSES.items():
        usual = type(recipe.loss).model_fields[name].default
        if getattr(recipe.loss, name) != usual and recipe.task not in tasks:
            raise UserError(
                f"{source}: loss.{name}: no part of the loss of {recipe.task}, only of "
                f"{' and '.join(tasks)}; leave it out"
            )
    if recipe.optimizer.nesterov and not recipe.optimizer.momentum:
        raise UserError(f"{source}: optimizer.nesterov: there is no momentum; set one above 0")
    weights = recipe.loss.class_weights
    if not isinstance(weights, str) and min(weights, default=0) < 0:
        raise UserError(
            f"{source}: loss.class_weights: {min(weights):g} is negative; use 0 or more"
        )
    _require_options(recipe.options, row, source)


def leaves(section: BaseModel, prefix: str = "") -> dict[str, Any]:
    """All values by dotted name, in the order of the fields."""
    found: dict[str, Any] = {}
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            found |= leaves(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def _require_language(recipe: Recipe, source: str) -> None:
    """Every field that only pictures have is as it was."""
    usual = leaves(type(recipe)(task="language", model=recipe.model))
    for name, value in leaves(recipe).items():
        known = name in _FOR_LANGUAGE and value != "16-mixed"
        if known or name.startswith("language.") or value == usual.get(name):
            continue
        instead = _INSTEAD.get(name.partition(".")[0])
        has = f"it has {instead}" if instead else "leave it out"
        raise UserError(f"{source}: {name}={value}: a language model is not trained so; {has}")


def _require_options(options: dict[str, Any], row: Entry, source: str) -> None:
    """The builder takes them, and they are of the kind of its defaults."""
    fixed = {"num_classes", "in_channels", *getattr(row.build, "keywords", ())}
    known = {
        name: parameter.default
        for name, parameter in inspect.signature(row.build).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and name not in fixed
    }
    for name, value in options.items():
        if name not in known and not known:
            raise UserError(f"{source}: options.{name}: this model has no options; leave it out")
        if name not in known:
            raise UserError(f"{source}: options: {unknown('option', name, known)}")
        usual = known[name]
        kinds = (int, float) if isinstance(usual, float) else type(usual)
        fits = isinstance(value, kinds) and isinstance(value, bool) == isinstance(usual, bool)
        if not fits or (
            isinstance(usual, (int, float)) and not isinstance(usual, bool) and value <= 0
        ):
            raise UserError(
                f"{source}: options.{name}: expected a value such as {usual!r} (got {value!r})"
            )
