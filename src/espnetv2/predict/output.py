"""Results on disk: files that are either whole or absent."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from espnetv2.errors import UserError
from espnetv2.predict.pipeline import Look
from espnetv2.predict.predictor import Result
from espnetv2.tasks.results import Classification, Detections, SegmentationMask

LARGEST_SIDE = 4096
"""Pixels of the longer side above which a drawing is reduced."""

_DRAWING = {Classification: "labels", SegmentationMask: "overlay", Detections: "boxes"}


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; it takes `path`'s place when all went well.

    The temporary name keeps the suffix, by which savers choose the format. On any failure, also
    Ctrl-C, it is removed and `path` stays as it was. The folder is made if it is missing.

    Raises:
        UserError: The folder cannot be made or written.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        raise UserError(f"{path}: cannot be written ({reason}); choose another folder") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_folder(folder: Path) -> None:
    """Refuse an output folder that could not be written, before any work is done.

    Nothing is made: a run that fails must leave no empty folder behind.

    Raises:
        UserError: It is a file, or it or the folder above it is not writable.
    """
    nearest = folder
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise UserError(f"{nearest}: is a file, not a folder; choose another --out")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError(f"{nearest}: no permission to write there; choose another --out")


def save_look(look: Look, out: Path, *, opacity: float = 0.5, score: float = 0.3) -> dict[str, Any]:
    """Write what was found in one picture; returns what the JSON file says.

    Classification: `NAME.json`, `NAME_labels.jpg`; segmentation: `NAME.json`, `NAME_mask.png`
    at full size, `NAME_overlay.jpg`; detection: `NAME.json`, `NAME_boxes.jpg`. Drawings have at
    most 4096 pixels a side.

    Raises:
        UserError: The folder cannot be written.
    """
    assert look.image is not None
    assert look.result is not None
    name, result = look.source.name, look.result
    files = [out / f"{name}_{_DRAWING[type(result)]}.jpg", out / f"{name}.json"]
    _save(draw(result, look.image, opacity=opacity, score=score), files[0], "jpeg", quality=92)
    if isinstance(result, SegmentationMask):
        files.insert(1, out / f"{name}_mask.png")
        _save(result.to_image(), files[1], "png")
    record = {
        "input": look.source.place,
        "height": look.image.height,
        "width": look.image.width,
        **result.to_json(),
        "files": [str(file) for file in files],
    }
    save_json(record, out / f"{name}.json")
    return record


def _save(picture: Image.Image, path: Path, form: str, **options: Any) -> None:
    """Encoded in memory, because PIL's encoders do not see that a disk is full."""
    encoded = io.BytesIO()
    picture.save(encoded, form, **options)
    with replacing(path) as temporary:
        temporary.write_bytes(encoded.getvalue())


def save_json(values: dict[str, Any], path: Path) -> None:
    """Write one JSON document, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def draw(
    result: Result,
    image: Image.Image,
    *,
    opacity: float = 0.5,
    score: float = 0.3,
    largest: int = LARGEST_SIDE,
) -> Image.Image:
    """The picture with the result drawn on it, reduced to at most `largest` pixels a side."""
    factor = -(-max(image.size) // largest)
    if factor > 1:
        image = image.reduce(factor)
    if isinstance(result, Classification):
        return result.draw(image)
    if isinstance(result, Detections):
        return replace(result, boxes=result.boxes / factor).draw(image, threshold=score)
    mask = result.mask[::factor, ::factor]
    return replace(result, mask=np.ascontiguousarray(mask)).draw(image, opacity=opacity)
