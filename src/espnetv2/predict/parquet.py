"""Results as rows of Parquet files: one per picture, also of one that cannot be read."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from espnetv2.data.pictures import open_picture
from espnetv2.errors import UserError
from espnetv2.extras import require
from espnetv2.predict.output import replacing
from espnetv2.predict.predictor import Predictor, Result
from espnetv2.tasks.results import Classification, SegmentationMask
from espnetv2.weights.load import Loaded


@dataclass(frozen=True)
class Settings:
    """What decides a result, beside the weights and the picture; see `predictor.load`.

    Attributes:
        tile: Segment in tiles of so many pixels; None for whole pictures where they fit.
        overlap: Pixels that tiles share.
    """

    size: tuple[int, int] | None = None
    enlarge: Literal["bilinear", "nearest"] = "bilinear"
    top: int = 5
    score: float = 0.3
    tile: int | None = None
    overlap: int = 0

    def predictor(self, loaded: Loaded, *, device: str = "cpu") -> Predictor:
        """Ready to look.

        Raises:
            UserError: As `predictor.load`, and for tiles of other tasks than segmentation.
        """
        if self.tile is not None and loaded.task != "segmentation":
            raise UserError(f"tiles are for segmentation; {loaded.name} does {loaded.task}")
        return Predictor(
            loaded,
            device=device,
            size=self.size,
            enlarge=self.enlarge,
            top=self.top,
            score=self.score,
        )


def look_up(
    predictor: Predictor, paths: Sequence[str], settings: Settings, *, batch_size: int = 1
) -> list[dict[str, Any]]:
    """A row for each file, in order: `path`, `error` and the result's columns.

    A batch that fails is tried again picture by picture. A picture that cannot be read, or
    fails alone while others go through, gets its error text and no result.

    Raises:
        Exception: What the network raised, if it looked at none of the pictures that it was given.
    """
    rows: list[dict[str, Any]] = []
    failures: list[Exception] = []
    looks = 0
    for start in range(0, len(paths), batch_size):
        images: dict[str, Image.Image] = {}
        found: dict[str, dict[str, Any]] = {}
        batch = paths[start : start + batch_size]
        for path in batch:
            try:
                images[path] = open_picture(path)
            except UserError as error:
                found[path] = {"error": str(error)}
        for path, outcome in _results(predictor, images, settings).items():
            if isinstance(outcome, Exception):
                failures.append(outcome)
                text = " ".join(str(outcome).split())
                found[path] = {"error": f"{path}: {type(outcome).__name__} ({text})"}
            else:
                looks += 1
                found[path] = _columns(outcome)
        rows += [{"path": _text(path), **found[path]} for path in batch]
    if failures and not looks:
        raise failures[0]  # the fault is not in one picture
    return rows


def write_part(rows: Sequence[dict[str, Any]], task: str, path: Path) -> None:
    """Write a Parquet file, whole or not at all.

    Raises:
        UserError: The folder cannot be written.
    """
    parquet = require("pyarrow.parquet", extra="ray")
    arrow = require("pyarrow", extra="ray")
    table = arrow.Table.from_pylist(list(rows), schema=schema(task))
    with replacing(path) as temporary:
        parquet.write_table(table, temporary)


def count_rows(path: Path) -> int | None:
    """How many pictures a part holds; None if it is not a whole Parquet file."""
    parquet = require("pyarrow.parquet", extra="ray")
    try:
        return int(parquet.read_metadata(path).num_rows)
    except (OSError, require("pyarrow", extra="ray").ArrowException):
        return None


def count_errors(path: Path) -> int:
    """How many pictures of a part could not be read."""
    errors = require("pyarrow.parquet", extra="ray").read_table(path, columns=["error"])
    return int(len(errors) - errors["error"].null_count)


def schema(task: str) -> Any:
    """Columns of a task's results; all but `path` may be null.

    Classification: `labels`, `scores`, best first. Segmentation: `shares` (class -> share of
    the pixels, largest first), `mask` (a palette PNG of class indices). Detection: `boxes`
    (x1 y1 x2 y2 in pixels), `labels`, `scores`, best first.
    """
    arrow = require("pyarrow", extra="ray")
    named = {
        "labels": arrow.list_(arrow.string()),
        "scores": arrow.list_(arrow.float32()),
        "shares": arrow.map_(arrow.string(), arrow.float64()),
        "mask": arrow.binary(),
        "boxes": arrow.list_(arrow.list_(arrow.float32())),
    }
    columns = {
        "classification": ("labels", "scores"),
        "segmentation": ("shares", "mask"),
        "detection": ("boxes", "labels", "scores"),
    }[task]
    return arrow.schema(
        [
            arrow.field("path", arrow.string(), nullable=False),
            ("error", arrow.string()),
            *((name, named[name]) for name in columns),
        ]
    )


def _results(
    predictor: Predictor, images: dict[str, Image.Image], settings: Settings
) -> dict[str, Result | Exception]:
    if not images:
        return {}
    try:
        if settings.tile is None:
            results = predictor.predict(list(images.values()))
            return dict(zip(images, results, strict=True))
        tiles = {"tile": settings.tile, "overlap": settings.overlap}
        return {path: predictor.segment_tiled(image, **tiles) for path, image in images.items()}
    except Exception as error:  # such as memory; the others of the batch need not suffer
        if len(images) == 1:
            return dict.fromkeys(images, error)
    found: dict[str, Result | Exception] = {}
    for path, image in images.items():
        found |= _results(predictor, {path: image}, settings)
    return found


def _columns(result: Result) -> dict[str, Any]:
    if isinstance(result, Classification):
        return {"labels": list(result.labels), "scores": list(result.scores)}
    if isinstance(result, SegmentationMask):
        png = io.BytesIO()
        result.to_image().save(png, "png")
        return {"shares": list(result.shares.items()), "mask": png.getvalue()}
    return {
        "boxes": result.boxes.tolist(),
        "labels": [result.classes[label] for label in result.labels],
        "scores": result.scores.tolist(),
    }


def _text(path: str) -> str:
    """A path as Parquet can hold it: bytes that are no UTF-8 are spelt out."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
