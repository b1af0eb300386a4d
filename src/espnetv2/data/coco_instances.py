"""COCO's instances JSON: boxes for detection, or the classes present for multi-label."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from espnetv2.data.boxes import BoxedSample, Boxes, box_fault
from espnetv2.data.pictures import open_picture
from espnetv2.data.sample import Sample, folder
from espnetv2.errors import UserError


@dataclass(frozen=True)
class Objects:
    """The objects of one picture.

    Attributes:
        corners: float32 (N, 4), x1 y1 x2 y2 in pixels of the JSON's size.
        labels: int64 (N,), from 0.
        crowd: bool (N,).
        areas: float32 (N,).
    """

    corners: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray


class CocoInstances:
    """`annotations/instances_<split>.json` with `images/<split>/` or `<split>/`.

    Classes follow the sorted category ids. Empty and inverted boxes are left out and named in
    `notes`; for multi-label their class still counts, since the object is there.

    Args:
        classes: Names by index, of a network or of another split; must be the file's.
        multilabel: Targets are 0/1 per class instead of boxes; crowds count.

    Raises:
        UserError: A file or folder is missing or damaged, or the classes differ.
    """

    palette: tuple[tuple[int, int, int], ...] | None = None

    def __init__(
        self,
        root: Path,
        split: str,
        classes: Sequence[str] | None = None,
        *,
        multilabel: bool = False,
    ) -> None:
        self.multilabel = multilabel
        path = annotation_file(root, split)
        content = read_json(path)
        self.pictures = picture_folder(root, split)
        self.notes: list[str] = []
        try:
            index_of = self._categories(content, path, classes)
            self._collect(content, path, index_of)
        except (KeyError, TypeError, IndexError) as error:
            raise UserError(
                f"coco: {path} lacks {error} in an entry; expected COCO's instances format"
            ) from error
        if not self.files:
            raise UserError(f"coco: {path} lists no pictures; export it again")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample | BoxedSample:
        name, (height, width) = self.files[index], self.sizes[index]
        image = open_picture(self.pictures / name)
        stem = self.ids[index]
        if self.multilabel:
            return Sample(image, self.present(index), stem)
        if image.size != (width, height):
            raise UserError(
                f"coco: {self.pictures / name} is {image.width}x{image.height}, but the JSON says "
                f"{width}x{height}; mend the JSON or put back the original picture"
            )
        found = self.objects[index]
        corners = torch.from_numpy(found.corners)
        corners = torch.minimum(corners.clamp(min=0), torch.tensor([width, height] * 2))
        target = Boxes(
            boxes=corners,
            labels=torch.from_numpy(found.labels + 1),
            difficult=torch.zeros(len(corners), dtype=torch.bool),
            crowd=torch.from_numpy(found.crowd),
            areas=torch.from_numpy(found.areas),
            size=(height, width),
            name=stem,
        )
        return BoxedSample(image, target, stem)

    def present(self, index: int) -> np.ndarray:
        """0/1 per class, float32 (classes,)."""
        found: np.ndarray = self._present[index].astype(np.float32)
        return found

    def counts(self, index: int, classes: int) -> Tensor:
        """Pictures (multi-label) or boxes that training uses, per class."""
        if self.multilabel:
            return torch.from_numpy(self._present[index].astype(np.int64))
        found = self.objects[index]
        return torch.from_numpy(np.bincount(found.labels[~found.crowd], minlength=classes))

    def _categories(
        self, content: dict[str, Any], path: Path, classes: Sequence[str] | None
    ) -> dict[int, int]:
        ordered = sorted(content["categories"], key=lambda category: category["id"])
        self.classes = tuple(category["name"] for category in ordered)
        self.shown_classes = self.classes
        if not self.classes:
            raise UserError(f"coco: {path} has no categories; export it again")
        if classes is not None and tuple(classes) != self.classes:
            odd = next((n for n in self.classes if n not in classes), "their number or order")
            raise UserError(
                f"coco: the {len(self.classes)} categories of {path} are not the "
                f"{len(classes)} classes wanted (see {odd!r}); use the same categories everywhere"
            )
        return {category["id"]: index for index, category in enumerate(ordered)}

    def _collect(self, content: dict[str, Any], path: Path, index_of: dict[int, int]) -> None:
        pictures = sorted(content["images"], key=lambda picture: picture["id"])
        self.files = [picture["file_name"] for picture in pictures]
        self.ids = [str(picture["id"]) for picture in pictures]
        self.sizes = [(int(picture["height"]), int(picture["width"])) for picture in pictures]
        place = {picture["id"]: position for position, picture in enumerate(pictures)}
        rows: list[list[tuple[Any, ...]]] = [[] for _ in pictures]
        self._present = np.zeros((len(pictures), len(self.classes)), dtype=bool)
        for entry in content["annotations"]:
            if entry["image_id"] not in place or entry["category_id"] not in index_of:
                raise UserError(
                    f"coco: annotation {entry.get('id')} of {path} names an unknown picture or "
                    "category; mend or remove it"
                )
            position, label = place[entry["image_id"]], index_of[entry["category_id"]]
            self._present[position, label] = True
            x, y, width, height = entry["bbox"]
            corners = (x, y, x + width, y + height)
            if fault := box_fault(corners):
                name = f"{path}: annotation {entry.get('id')} ({self.files[position]})"
                self.notes.append(f"{name} has an {fault} box; left out")
                continue
            area = float(entry.get("area", width * height))
            rows[position].append((*corners, label, bool(entry.get("iscrowd", 0)), area))
        self.objects = [_objects(found) for found in rows]


def annotation_file(root: Path, split: str) -> Path:
    """The JSON of a split.

    Raises:
        UserError: It is missing; names those that exist.
    """
    base = folder(root / "annotations", what="coco")
    path = base / f"instances_{split}.json"
    if not path.is_file():
        known = sorted(entry.stem.removeprefix("instances_") for entry in base.glob("inst*.json"))
        raise UserError(
            f"coco: no file {path}; there are splits {', '.join(known) or 'none'}: name one of "
            "them or export the annotations as instances_<split>.json"
        )
    return path


def read_json(path: Path) -> dict[str, Any]:
    """An instances file.

    Raises:
        UserError: It is no JSON, or not of this format.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"coco: {path} cannot be read: {error}; export it again") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise UserError(f"coco: {path} has no list {key!r}; expected an instances file")
    return content


def picture_folder(root: Path, split: str) -> Path:
    """Where the pictures of a split are."""
    for path in (root / "images" / split, root / split, root / "images"):
        if path.is_dir():
            return path
    raise UserError(f"coco: no pictures in {root}; expected images/{split}/ or {split}/")


def _objects(rows: list[tuple[Any, ...]]) -> Objects:
    table = np.array(rows, dtype=np.float64).reshape(-1, 7)
    return Objects(
        table[:, :4].astype(np.float32),
        table[:, 4].astype(np.int64),
        table[:, 5].astype(bool),
        table[:, 6].astype(np.float32),
    )
