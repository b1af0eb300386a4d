"""Networks with weights: by published name, from our files, from official files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from espnetv2.data.catalog import LABELS
from espnetv2.data.preprocess import CONVENTIONS, Preprocessing
from espnetv2.errors import UserError, unknown
from espnetv2.models.catalog import Task, entry
from espnetv2.weights import keys
from espnetv2.weights.fetch import fetch
from espnetv2.weights.files import Header, damaged_header, read_official, read_safetensors
from espnetv2.weights.published import PUBLISHED, published_for
from espnetv2.weights.recognize import recognize

_OFFICIAL_SUFFIXES = {".pth", ".pt", ".tar"}


@dataclass(frozen=True)
class Loaded:
    """A network in eval mode and what is needed to use it.

    Attributes:
        network: Maps a preprocessed batch to raw outputs.
        name: In the catalog.
        task: What the outputs are.
        classes: Names in the order of the outputs; a detector's without background.
        palette: A colour per class, if any.
        preprocessing: Of the weights.
        source: One line: where the weights come from.
        fresh: Parameters that the file did not fill, because another number of classes was
            asked for.
        options: What the network was built with.
        multi_label: Whether a classifier's outputs are to be taken each for itself (sigmoid), not
            together (softmax).
    """

    network: nn.Module
    name: str
    task: Task
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...] | None
    preprocessing: Preprocessing
    source: str
    fresh: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    multi_label: bool = False


def create_model(
    name: str,
    *,
    pretrained: bool = False,
    num_classes: int | None = None,
    in_channels: int = 3,
    features_only: bool = False,
) -> nn.Module:
    """Make a network by name, in training mode.

    Args:
        name: Of the catalog; with a weight tag (`espnetv2_seg_s1_0.edgenets_voc_384`) the
            weights are loaded.
        pretrained: Load the default published weights of a name without a tag.
        num_classes: Another number of classes than the network's own; with weights, the parts
            that depend on it start fresh. 0 leaves a classifier's last layer out.
        in_channels: Of the image; with weights, the first convolutions are adapted (summed for
            one channel, repeated in turn for others).
        features_only: Return the backbone, which maps an image to the list of its stage
            outputs, finest first, and states `channels` and `strides`.

    Raises:
        UserError: Unknown name, numbers that make no network, or weights that cannot be had.
    """
    if not isinstance(name, str):
        raise UserError(f"the name of a network is a text, not {name!r}; see list_models()")
    if pretrained or "." in name:
        loaded = load_network(name, num_classes=num_classes, in_channels=in_channels)
        network = loaded.network.train()
    else:
        options = {} if num_classes is None else {"num_classes": num_classes}
        network = _build(name, options, in_channels=in_channels)
    return _backbone_of(network, name) if features_only else network


def load_network(
    name_or_file: str | Path, *, num_classes: int | None = None, in_channels: int = 3
) -> Loaded:
    """Load a published name, a file of ours (.safetensors) or an official file (.pth).

    Raises:
        UserError: Unknown name, damaged file, keys that do not fit, no network.
    """
    state, header = read_weights(name_or_file)
    check_fit(state, header, source=str(name_or_file))
    network = _build(header.model, header.options)
    network.load_state_dict(state)
    fresh: tuple[str, ...] = ()
    classes, options = header.classes, header.options
    if in_channels != 3 or num_classes not in (None, header.options.get("num_classes")):
        options = options | ({} if num_classes is None else {"num_classes": num_classes})
        network, fresh = _adapt(network, header.model, options, in_channels=in_channels)
        if num_classes is not None:
            classes = tuple(f"class {i}" for i in range(num_classes))
    return Loaded(
        network=network.eval(),
        name=header.model,
        task=entry(header.model).task,
        classes=classes,
        palette=header.palette if classes is header.classes else None,
        preprocessing=Preprocessing.from_json(header.preprocessing),
        source=str(header.source.get("name", name_or_file)),
        options=options,
        fresh=fresh,
        multi_label=header.multi_label,
    )


def read_weights(name_or_file: str | Path) -> tuple[dict[str, Tensor], Header]:
    """Tensors under our names, and the header, of anything that `load_network` takes."""
    path, name = Path(name_or_file), str(name_or_file)
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    if path.suffix in _OFFICIAL_SUFFIXES:
        return read_converted(path)
    rows = [PUBLISHED[name]] if name in PUBLISHED else published_for(name)
    if rows and rows[0].shipped:
        return read_safetensors(fetch(rows[0]))
    if rows:
        return read_converted(fetch(rows[0]), published=rows[0].name)
    if names_file(name) or path.exists():
        raise UserError(
            f"{path}: expected a .safetensors or an official .pth file, or what `espnetv2 export` "
            "wrote with the export.json beside it"
        )
    if "." in name:
        raise unknown("weights", name, PUBLISHED)
    entry(name)
    raise UserError(
        f"no weights were published for {name}; train it, or give a .safetensors or .pth file"
    )


def names_file(name_or_file: str | Path) -> bool:
    """Whether a file is meant, there or not, and no published name."""
    path = Path(name_or_file)
    return path.suffix in {".safetensors", *_OFFICIAL_SUFFIXES} or len(path.parts) > 1


def read_converted(path: Path, *, published: str = "") -> tuple[dict[str, Tensor], Header]:
    """An official file under our names, with the header that its keys and shapes tell.

    Args:
        published: Name in `PUBLISHED` when it is known; else it is told by the file's hash.
    """
    official = read_official(path)
    try:
        found = recognize(official, file_name=path.name)
        state = keys.to_ours(official, found.family)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    options, size, labels = found.options, found.size, found.labels
    source: dict[str, Any] = {"name": published or path.name, "repository": "", "licence": ""}
    if row := PUBLISHED.get(published):
        size, labels = row.size, row.labels
        source |= {
            "repository": f"sacmehta/{row.repository}",
            "licence": row.licence,
            "metric": row.metric,
            "score": row.score,
        }
    preprocessing = CONVENTIONS[found.convention].resized(size)
    outputs = options["num_classes"] - (entry(found.model).task == "detection")
    known = LABELS[labels] if labels else None
    header = Header(
        model=found.model,
        options=options,
        classes=known.classes if known else tuple(f"class {i}" for i in range(outputs)),
        palette=known.palette if known else None,
        preprocessing=preprocessing.to_json(),
        source=source,
    )
    return state, header


def check_fit(state: Mapping[str, Tensor], header: Header, *, source: str) -> nn.Module:
    """The network that a header describes, without memory (torch's meta device).

    Raises:
        UserError: There is none, or it is not that of the tensors.
    """
    try:
        with torch.device("meta"):
            network = _build(header.model, header.options)
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise damaged_header(source, f"no {header.model} has its options ({reason})") from error
    _check_state(network, state, source=source)
    row = entry(header.model)
    outputs = header.options.get("num_classes", row.num_classes) - (row.task == "detection")
    if len(header.classes) != outputs:
        raise damaged_header(source, f"{len(header.classes)} classes for {outputs} outputs")
    return network


def load_strictly(network: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """Fill a network in place; every key must be there, in its shape, and none besides.

    Raises:
        UserError: Names the keys that are missing, left over or of another shape, or the first
            that holds NaN or infinity.
    """
    _check_state(network, state, source=source)
    network.load_state_dict(state)


def _check_state(network: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    own = network.state_dict()
    for problem, names in (
        ("lacks", [k for k in own if k not in state]),
        ("has unknown", [k for k in state if k not in own]),
        ("has other shapes in", [k for k in own if k in state and own[k].shape != state[k].shape]),
    ):
        if names:
            raise UserError(f"{source} {problem} {len(names)} keys: {', '.join(sorted(names))}")
    for name in own:
        if not state[name].float().isfinite().all():
            raise UserError(f"{source}: {name} holds NaN or infinity; convert or train it again")


def _build(name: str, options: Mapping[str, Any], *, in_channels: int = 3) -> nn.Module:
    """A network with fresh weights; the one place where its numbers are checked."""
    row = entry(name)
    options = {"num_classes": row.num_classes, **options}
    classes = options["num_classes"]
    for what, value, least in (("num_classes", classes, 0), ("in_channels", in_channels, 1)):
        if not isinstance(value, Integral) or value < least:
            raise UserError(f"{name}: {what} is {value!r}; give a whole number from {least}")
    if row.task != "language":
        options["in_channels"] = in_channels
    elif in_channels != 3:
        raise UserError("a language model has no image channels")
    network: nn.Module = row.build(**options | {"num_classes": classes or 1})
    if classes == 0:
        _without_head(network, name)
    return network


def _adapt(
    network: nn.Module, name: str, options: dict[str, Any], *, in_channels: int
) -> tuple[nn.Module, tuple[str, ...]]:
    """A network for other classes or channels with everything of `network` that still fits."""
    fitted = _build(name, options, in_channels=in_channels)
    state, own = network.state_dict(), fitted.state_dict()
    fresh = []
    for key, value in own.items():
        given = state[key]
        if given.shape != value.shape and given.dim() == 4 and given.shape[1] == 3:
            given = _adapt_channels(given, in_channels)
        if given.shape == value.shape:
            value.copy_(given)
        else:
            fresh.append(key)
    return fitted, tuple(fresh)


def _adapt_channels(weight: Tensor, in_channels: int) -> Tensor:
    """Input weights of RGB for another number of channels, at the same strength.

    Shape: (O, 3, k, k) -> (O, in_channels, k, k)
    """
    if in_channels == 1:
        return weight.sum(dim=1, keepdim=True)
    repeats = -(-in_channels // 3)
    return weight.repeat(1, repeats, 1, 1)[:, :in_channels] * (3 / in_channels)


def _without_head(network: nn.Module, name: str) -> None:
    reset = getattr(network, "reset_classifier", None)
    if reset is None:
        raise UserError(f"{name} has no classifier to leave out; num_classes must be positive")
    reset(0)


def _backbone_of(network: nn.Module, name: str) -> nn.Module:
    backbone = getattr(network, "backbone", None)
    if backbone is None:
        raise UserError(
            f"{name} has no feature pyramid; choose a network of espnetv2_*, espnet_c_* or "
            "shufflenetv1_*"
        )
    return backbone  # type: ignore[no-any-return]
