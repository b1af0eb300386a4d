"""Reading and writing weights files: safetensors with a header, official `.pth` read safely."""

from __future__ import annotations

import json
import os
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf, isfinite
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from espnetv2.data.preprocess import Preprocessing
from espnetv2.errors import UserError

FORMAT = "espnetv2/1"


@dataclass(frozen=True)
class Header:
    """What a weights file says about itself.

    Attributes:
        model: Name in the catalog.
        options: For the network's builder: `num_classes` and the like.
        classes: Names in the order of the outputs (a detector's without background).
        palette: Colour (r, g, b) per class, if any.
        preprocessing: Fields of `data.preprocess.Preprocessing`.
        source: Where the weights come from, with licence and score where known.
        multi_label: Whether a classifier names every class that a picture shows, each for itself.
    """

    model: str
    options: dict[str, Any]
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...] | None
    preprocessing: dict[str, Any]
    source: dict[str, Any] = field(default_factory=dict)
    multi_label: bool = False


def read_official(path: Path) -> dict[str, Tensor]:
    """The state dict in an official `.pth`: tensors only, nothing in the file is executed.

    A training checkpoint gives its `state_dict` entry.

    Raises:
        UserError: The file is missing, empty, truncated, holds anything but tensors and plain
            values, or holds no state dict.
    """
    _require_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols: such files are refused anyway
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported" in str(error) or "weights_only" in str(error).lower():
            raise UserError(
                f"{path} holds Python objects, not only tensors, and was refused: nothing in it "
                "was run; ask its author for a plain state dict"
            ) from error
        raise _damaged(path, error) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise _damaged(path, error) from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content:
        raise UserError(f"{path} holds no state dict; expected names and tensors")
    odd = [key for key, value in content.items() if not isinstance(value, Tensor)]
    if odd:
        raise UserError(f"{path}: {odd[0]!r} is not a tensor; expected a plain state dict")
    return {str(key): value for key, value in content.items()}


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], Header]:
    """The tensors and the header of a file that `write_safetensors` made.

    Raises:
        UserError: The file is missing, damaged, or was not written by this package.
    """
    _require_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error
    if metadata.get("format") != FORMAT:
        raise UserError(
            f"{path} has no {FORMAT} header, so its network is unknown; make it with "
            "`espnetv2 convert` or `espnetv2 train`"
        )
    try:
        header = _parse(json.loads(metadata["header"]))
    except KeyError as error:
        raise damaged_header(path, f"{error} is missing") from error
    except (AttributeError, ValueError, TypeError) as error:
        raise damaged_header(path, error) from error
    return state, header


def damaged_header(source: str | Path, reason: object) -> UserError:
    """The error for a file whose header says what cannot be."""
    return UserError(f"{source}: its header is damaged: {reason}; convert or train it again")


def write_safetensors(state: Mapping[str, Tensor], header: Header, path: Path) -> None:
    """Write tensors and header, all or nothing.

    Raises:
        UserError: The place cannot be written.
    """
    metadata = {"format": FORMAT, "header": json.dumps(header.__dict__)}
    scratch = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({k: v.contiguous().clone() for k, v in state.items()}, scratch, metadata=metadata)
        scratch.replace(path)
    except (OSError, SafetensorError) as error:
        remove(scratch)
        raise UserError(f"cannot write {path} ({error}); choose a writable place") from error


def remove(path: Path) -> None:
    """Remove what a failed write left, if it left anything."""
    with suppress(OSError):
        path.unlink()


def _parse(values: dict[str, Any]) -> Header:
    """A header from JSON's values, each of its type; a ValueError or TypeError says what is not."""
    classes, palette = values.pop("classes"), values.pop("palette")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError("classes is not a list of names")
    if palette is not None:
        palette = tuple(tuple(colour) for colour in palette)
        if len(palette) < len(classes):
            raise ValueError(f"palette has {len(palette)} colours for {len(classes)} classes")
        if not all(len(colour) == 3 and set(colour) <= set(range(256)) for colour in palette):
            raise ValueError("palette holds more than colours (r, g, b) of 0 to 255")
    header = Header(classes=tuple(classes), palette=palette, **values)
    for name in ("options", "preprocessing", "source"):
        if not isinstance(getattr(header, name), dict):
            raise ValueError(f"{name} is {getattr(header, name)!r}")
    if not isinstance(header.model, str) or not isinstance(header.multi_label, bool):
        raise ValueError(f"model is {header.model!r}, multi_label {header.multi_label!r}")
    _check_preprocessing(Preprocessing.from_json(header.preprocessing))
    return header


def _check_preprocessing(spec: Preprocessing) -> None:
    """Refuse values with which no picture becomes an input."""
    size, scales = spec.size, (*spec.std, spec.unit, spec.divisor)
    for name, fits in (
        ("size", size is None or (len(size) == 2 and all(type(x) is int and x > 0 for x in size))),
        ("fit", spec.fit in ("stretch", "center")),
        ("resize", spec.resize in ("pil", "plain", "plain-late")),
        ("order", spec.order in ("rgb", "bgr")),
        ("mean", len(spec.mean) == 3 and all(map(isfinite, spec.mean))),
        ("std, unit or divisor", len(scales) == 5 and all(0 < x < inf for x in scales)),
        ("crop_share", 0 < spec.crop_share <= 1),
    ):
        if not fits:
            raise ValueError(f"preprocessing cannot have such {name}")


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"{path} is not a file; check the path")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty; download or convert it again")


def _damaged(path: Path, error: BaseException) -> UserError:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return UserError(f"{path} is damaged or not a weights file ({first[:120]})")
