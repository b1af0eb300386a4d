"""Recipes: what to train, on what, how. Short YAML files that state a base and what differs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
)

from espnetv2.errors import UserError, unknown
from espnetv2.training.agreement import require_agreement
from espnetv2.training.schedules import Cosine, Schedule

Task = Literal["classification", "multilabel", "segmentation", "detection", "language"]
Share = Annotated[float, Field(ge=0, lt=1)]
SHIPPED = Path(__file__).with_name("recipes")


class _Loader(yaml.SafeLoader):
    """YAML in which 6e-2 is a number too, not only 6.0e-2."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Data(_Section):
    """What to read and how to vary it.

    Attributes:
        format: Of the folder, a key of `data.sources.FORMATS`; "auto" finds out.
        size: (height, width) of the network's input.
        convention: Of preprocessing, a key of `data.preprocess.CONVENTIONS`.
        augment: Policy of `data.transforms` for training pictures.
        classes: Names, where the folder does not tell them.
        batch_size: Pictures a step and process.
        workers: Processes that read ahead.
        extra: List files of more training pairs, `picture TAB mask` a line, such as
            `espnetv2 data coco2voc` writes.
    """

    format: str = "imagefolder"
    train_split: str = "train"
    val_split: str = "val"
    size: tuple[PositiveInt, PositiveInt] = (224, 224)
    convention: str = "imagenet"
    augment: str = "none"
    classes: tuple[str, ...] | None = None
    batch_size: int = Field(default=32, ge=1)
    workers: int = Field(default=2, ge=0)
    extra: tuple[str, ...] = ()


class Optimizer(_Section):
    """How weights move.

    Attributes:
        head_factor: Learning rate of everything behind the backbone, relative to the backbone's.
        decay_norms: Whether weight decay reaches norms, slopes and biases, as the official code
            has it.
    """

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    momentum: Share = 0.9
    nesterov: bool = False
    betas: tuple[Share, Share] = (0.9, 0.999)
    weight_decay: NonNegativeFloat = 4e-5
    head_factor: PositiveFloat = 1.0
    decay_norms: bool = True


class Loss(_Section):
    """What is minimised.

    Attributes:
        class_weights: "none", "inverse-log" (1 / ln(1.10 + share), counted on the training
            split), or a factor per class.
        auxiliary: Weight of the auxiliary logits of networks that have them.
        mixup: Parameter of the beta distribution that mixes pictures; 0 for none.
        cutmix: The same for pasted rectangles.
        match_iou: Overlap from which a detector's prior is trained on a box; less helps boxes
            smaller than the smallest prior, a tenth of the picture.
    """

    label_smoothing: Share = 0.0
    class_weights: Literal["none", "inverse-log"] | tuple[float, ...] = "none"
    auxiliary: NonNegativeFloat = 0.0
    mixup: NonNegativeFloat = 0.0
    cutmix: NonNegativeFloat = 0.0
    match_iou: float = Field(default=0.45, gt=0, le=1)


class Distill(_Section):
    """Learning from a teacher beside the truth; see `training.distillation`.

    Attributes:
        teacher: `timm:NAME`, `torchvision:NAME`, a published name, a weights file of ours, or a
            name of the catalog together with `teacher_weights`; None for no teacher.
        teacher_weights: A file for it, safetensors or a plain state dict; its library's own,
            which are downloaded, where None.
        temperature: Softens both sides; 1 leaves them.
        weight: Of the teacher's word: (1 - weight) * hard + weight * temperature^2 * KL.
    """

    teacher: str | None = None
    teacher_weights: str | None = None
    temperature: float = Field(default=4.0, gt=0)
    weight: float = Field(default=0.5, ge=0, le=1)


class Quantize(_Section):
    """Fine-tuning for int8; see `training.quantization`.

    Attributes:
        to: "int8" rounds weights and activations on the way forward; norms keep their statistics.
        momentum: Of the moving averages of the activations' ranges.
        watch: Share of the epochs in which ranges still move.
    """

    to: Literal["float", "int8"] = "float"
    momentum: float = Field(default=0.1, gt=0, le=1)
    watch: float = Field(default=0.75, gt=0, le=1)


class Language(_Section):
    """What only language models have; see `training.language.LanguageSettings`."""

    eval_batch: PositiveInt = 10
    bptt: PositiveInt = 70
    clip: NonNegativeFloat = 0.25
    alpha: NonNegativeFloat = 2.0
    beta: NonNegativeFloat = 1.0
    dropout: Share = 0.5
    trigger: NonNegativeInt = 5
    rate: PositiveFloat = 30.0
    weight_decay: NonNegativeFloat = 1.2e-6


class Recipe(_Section):
    """One training run, or several stages of one.

    Attributes:
        model: Name in the catalog.
        options: Of the network's builder, beside the class count.
        weights: What to start from: a published name or a file; None for fresh weights.
        precision: Of the arithmetic, as Lightning names it.
        channels_last: Whether maps have them last in memory; None: on a GPU.
        compile: Mode of `torch.compile` for training steps; "reduce-overhead" records CUDA graphs.
        ema: Decay of the weights' moving average; None for none.
        freeze_norm: "frozen" keeps norms as they are; "official" keeps only their scale and
            bias, as the official code's flag in effect does; "no" trains them.
        stages: What differs in each of several runs, every one starting from the one before.
        expect: The score to expect, in words.
    """

    task: Task
    model: str
    options: dict[str, Any] = Field(default_factory=dict)
    weights: str | None = None
    data: Data = Data()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Cosine(name="cosine", rate=0.1)
    loss: Loss = Loss()
    distill: Distill = Distill()
    quantize: Quantize = Quantize()
    language: Language = Language()
    epochs: int = Field(default=1, ge=1)
    accumulate: int = Field(default=1, ge=1)
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    channels_last: bool | None = None
    compile: Literal["no", "default", "reduce-overhead", "max-autotune"] = "no"
    clip: PositiveFloat | None = None
    ema: Share | None = None
    early_stopping: PositiveInt | None = None
    freeze_norm: Literal["no", "frozen", "official"] = "no"
    seed: int = Field(default=1882, ge=0, lt=2**32)
    stages: tuple[dict[str, Any], ...] = ()
    expect: str = ""

    @field_validator("freeze_norm", "compile", mode="before")
    @classmethod
    def _plain_no(cls, value: Any) -> Any:
        return "no" if value is False else value  # YAML takes a bare `no` for false


def list_recipes() -> list[str]:
    """Names of the shipped recipes."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def load_recipe(
    name_or_file: str | Path, *, changes: list[str] | None = None, weights: str | None = None
) -> Recipe:
    """Read a shipped recipe or a YAML file, with changes such as `optimizer.momentum=0.8`.

    Args:
        weights: To start from, instead of the recipe's.

    Raises:
        UserError: No such recipe or file, YAML that cannot be read, an unknown field (the
            closest one is offered) or a value out of range.
    """
    values = _resolve(str(name_or_file), seen=())
    for change in changes or []:
        _apply(values, change)
    if weights is not None:
        values["weights"] = weights
    return parse(values, source=str(name_or_file))


def parse(values: dict[str, Any], *, source: str) -> Recipe:
    """A recipe of plain values.

    Raises:
        UserError: As `load_recipe`.
    """
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        raise _explain(error, source) from error
    require_agreement(recipe, source)
    return recipe


def stage_recipes(recipe: Recipe) -> list[Recipe]:
    """The runs of a recipe: one, or one per stage with the stage's changes merged in."""
    if not recipe.stages:
        return [recipe]
    plain = recipe.model_dump(exclude={"stages"})
    return [
        parse(_merge(plain, stage), source=f"stage {number}")
        for number, stage in enumerate(recipe.stages, start=1)
    ]


def _resolve(name: str, *, seen: tuple[str, ...]) -> dict[str, Any]:
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = SHIPPED / f"{name}.yaml"
        if not path.is_file():
            raise unknown("recipe", name, list_recipes())
    if name in seen:
        raise UserError(f"recipe {name} is its own base; break the circle {' -> '.join(seen)}")
    try:
        values = _yaml(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise UserError(f"recipe {path} cannot be read ({error.strerror})") from error
    except yaml.YAMLError as error:
        raise UserError(f"recipe {path} is not YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(values, dict):
        raise UserError(f"recipe {path} must hold fields such as `model:`, not {values!r}")
    base = values.pop("base", None)
    if base is None:
        return values
    return _merge(_resolve(str(base), seen=(*seen, name)), values)


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` on top of `base`, section by section; a schedule of another name replaces it."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        renamed = isinstance(value, dict) and isinstance(old, dict) and "name" in value
        if renamed and value["name"] != old.get("name"):  # type: ignore[union-attr]
            merged[key] = value
        elif isinstance(value, dict) and isinstance(old, dict):
            merged[key] = _merge(old, value)
        else:
            merged[key] = value
    return merged


def _apply(values: dict[str, Any], change: str) -> None:
    path, sign, text = change.partition("=")
    if not sign or not path:
        raise UserError(f"--set {change!r}: expected FIELD=VALUE, such as optimizer.momentum=0.8")
    *sections, last = path.split(".")
    for section in sections:
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            raise UserError(f"--set {change!r}: {section} is a value, not a section")
        values = inner
    try:
        values[last] = _yaml(text)
    except yaml.YAMLError as error:
        raise UserError(f"--set {change!r} is not YAML ({str(error).splitlines()[0]})") from error


def _yaml(text: str) -> Any:
    return yaml.load(text, _Loader)


_OTHER_SCHEDULE = ("extra_forbidden", "missing", "union_tag_not_found")


def _explain(error: ValidationError, source: str) -> UserError:
    """The first problem in one line, with the closest field for a typo."""
    first = error.errors()[0]
    section, *rest = first["loc"] or ("recipe",)
    kind = rest.pop(0) if section == "schedule" and rest else "cosine"  # pydantic tells it there
    where = ".".join(map(str, (section, *rest)))
    hint = ""
    if section == "schedule" and first["type"] in _OTHER_SCHEDULE:
        hint = f"; another schedule is set whole: --set 'schedule={{name: {kind}, ...}}'"
    if first["type"] == "extra_forbidden":
        known = _fields(first["loc"][:-1])
        return UserError(f"{source}: {unknown('field', where, known)}{hint}")
    message = first["msg"].removeprefix("Value error, ")
    got = "" if isinstance(first["input"], dict) else f" (got {first['input']!r})"
    return UserError(f"{source}: {where}: {message}{got}{hint}")


def _fields(location: tuple[int | str, ...]) -> list[str]:
    """Dotted names of the fields of a section."""
    model: type[BaseModel] = Recipe
    prefix = ""
    for part in location:
        if part == "schedule":
            model = next(
                kind
                for kind in get_args(get_args(Schedule)[0])
                if get_args(kind.model_fields["name"].annotation) == location[1:2]
            )
            prefix = "schedule."
            break
        annotation = (
            model.model_fields[str(part)].annotation if part in model.model_fields else None
        )
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model, prefix = annotation, f"{prefix}{part}."
    return [f"{prefix}{name}" for name in model.model_fields]
