"""COCO's instances drawn as masks of VOC's 21 classes, for training on both."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from espnetv2.data import voc
from espnetv2.data.coco_instances import annotation_file, picture_folder, read_json
from espnetv2.errors import UserError
from espnetv2.extras import require

OTHER_NAMES = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}
"""VOC's names of things that COCO calls otherwise."""

COCO_NAMES = tuple(OTHER_NAMES.get(name, name) for name in voc.DETECTION_CLASSES)
"""COCO's names of VOC's things, in VOC's order."""

_PALETTE = [value for colour in voc.bit_palette(256) for value in colour]


@dataclass(frozen=True)
class Conversion:
    """What a conversion left and left out.

    Attributes:
        list: File with a line `picture TAB mask` for each picture, relative to its folder.
        pictures: How many the list has.
        drawn: How many masks were written now; the others were there already.
        small: How many pictures are left out because a side is too short.
        empty: How many are left out because their mask would say one thing everywhere.
    """

    list: Path
    pictures: int
    drawn: int
    small: int
    empty: int


@dataclass(frozen=True)
class _Picture:
    """One picture and its objects of VOC's classes, as (class, crowd, segmentation, id)."""

    name: str
    height: int
    width: int
    objects: Sequence[tuple[int, bool, Any, Any]]


def convert(
    root: Path,
    out: Path,
    *,
    split: str = "train2017",
    min_side: int = 256,
    progress: Callable[[str, int, int], None] | None = None,
) -> Conversion:
    """Write `<out>/<split>/*.png`, palette masks, and the list `<out>/<split>.txt`.

    As in the EdgeNets code a picture is left out if a side is shorter than `min_side` or if its
    mask has fewer than two different values. A mask that is there is kept, so a conversion that
    was stopped goes on; every file is written whole or not at all.

    Args:
        root: With `annotations/instances_<split>.json` and the pictures.

    Raises:
        UserError: A file or picture is missing, the JSON has boxes only or is damaged, or `out`
            cannot be written.
    """
    path = annotation_file(root, split)
    pictures, small = _read(path, min_side=min_side)
    folder = picture_folder(root, split)
    for picture in pictures:
        if not (folder / picture.name).is_file():
            raise UserError(
                f"coco: {path} lists {picture.name}, which is not in {folder}; complete the "
                "download"
            )
    drawer = _drawer()
    masks = out / split
    kept: list[tuple[Path, Path]] = []
    drawn = 0
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        work = partial(_convert_one, masks=masks, drawer=drawer, source=path)
        try:
            for number, (picture, state) in enumerate(
                zip(pictures, pool.map(work, pictures), strict=True), start=1
            ):
                if state != "empty":
                    kept.append((folder / picture.name, _mask_file(masks, picture.name)))
                drawn += state == "drawn"
                if progress is not None:
                    progress(split, number, len(pictures))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    file = out / f"{split}.txt"
    lines = [f"{_relative(picture, out)}\t{_relative(mask, out)}\n" for picture, mask in kept]
    _write(file, lambda scratch: scratch.write_text("".join(lines), encoding="utf-8"))
    return Conversion(file, len(kept), drawn, small, len(pictures) - len(kept))


def draw_mask(
    objects: Sequence[tuple[int, bool, np.ndarray]], height: int, width: int
) -> np.ndarray:
    """A label map of objects (class, crowd, bool mask); where they overlap the first one stays.

    Crowds are 255, not labelled, where no single object is: their outline is coarse.  # D59

    Shape: uint8 (height, width)
    """
    labels = np.zeros((height, width), dtype=np.uint8)
    for number, crowd, mask in sorted(objects, key=lambda one: one[1]):  # single objects first
        labels[mask & (labels == 0)] = voc.IGNORE if crowd else number
    return labels


def _read(path: Path, *, min_side: int) -> tuple[list[_Picture], int]:
    """The pictures with something of VOC's classes on them, and how many are too small."""
    content = read_json(path)
    try:
        number_of = {
            category["id"]: COCO_NAMES.index(category["name"]) + 1
            for category in content["categories"]
            if category["name"] in COCO_NAMES
        }
        objects: dict[Any, list[tuple[int, bool, Any, Any]]] = {}
        for entry in content["annotations"]:
            number = number_of.get(entry["category_id"])
            if number is None:
                continue
            if not entry.get("segmentation"):
                raise UserError(
                    f"coco: annotation {entry.get('id')} of {path} has no segmentation, only a "
                    "box; use the instances file that COCO publishes"
                )
            crowd = bool(entry.get("iscrowd", 0))
            row = (number, crowd, entry["segmentation"], entry.get("id"))
            objects.setdefault(entry["image_id"], []).append(row)
        found = [
            _Picture(_inside(row["file_name"], path), int(row["height"]), int(row["width"]), things)
            for row in sorted(content["images"], key=lambda row: row["id"])
            if (things := objects.get(row["id"]))
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"coco: {path} lacks {error} in an entry; expected COCO's instances format"
        ) from error
    if not number_of:
        raise UserError(f"coco: {path} has none of VOC's 20 categories, such as person or tv")
    large = [picture for picture in found if min(picture.height, picture.width) >= min_side]
    return large, len(found) - len(large)


def _inside(name: str, source: Path) -> str:
    """A picture's file name, which must not lead out of the folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise UserError(f"coco: {source} names the picture {name}, outside its folder; mend it")
    return name


Drawer = Callable[[Any, int, int], np.ndarray]


def _drawer() -> Drawer:
    """Makes a bool mask (height, width) of COCO's polygons or runs."""
    runs = require("faster_coco_eval.core.mask", extra="detection")

    def draw(segmentation: Any, height: int, width: int) -> np.ndarray:
        if isinstance(segmentation, list):
            outlines = [part for part in segmentation if len(part) >= 6]  # 4 would be a box
            if not outlines:
                return np.zeros((height, width), dtype=bool)
            found = runs.merge(runs.frPyObjects(outlines, height, width))
        elif list(segmentation["size"]) != [height, width]:
            raise ValueError(f"a mask of {segmentation['size']} on a picture of {height, width}")
        elif isinstance(segmentation["counts"], list):
            found = runs.frPyObjects(segmentation, height, width)
        else:
            found = segmentation
        mask: np.ndarray = runs.decode(found)
        return mask.astype(bool)

    return draw


def _convert_one(picture: _Picture, *, masks: Path, drawer: Drawer, source: Path) -> str:
    """Draw one picture's mask; "drawn", "there" already, or "empty"."""
    target = _mask_file(masks, picture.name)
    if target.is_file():
        return "there"
    size = (picture.height, picture.width)
    objects = []
    for number, crowd, segmentation, key in picture.objects:
        try:
            objects.append((number, crowd, drawer(segmentation, *size)))
        except (ValueError, TypeError, KeyError, RuntimeError) as error:
            first = str(error).strip().splitlines()[0]
            raise UserError(
                f"coco: the segmentation of annotation {key} in {source} cannot be drawn "
                f"({first}); mend or remove it"
            ) from error
    labels = draw_mask(objects, *size)
    if len(np.unique(labels[labels != voc.IGNORE])) < 2:
        return "empty"
    image = Image.fromarray(labels)
    image.putpalette(_PALETTE)
    _write(target, lambda scratch: image.save(scratch, format="PNG"))
    return "drawn"


def _mask_file(masks: Path, name: str) -> Path:
    return (masks / name).with_suffix(".png")


def _write(path: Path, fill: Callable[[Path], Any]) -> None:
    """Write a file whole or not at all."""
    scratch = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fill(scratch)
        scratch.replace(path)
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror or error}); make room or choose another --out, "
            "then run again: what is done stays"
        ) from error
    finally:
        if path.parent.is_dir():
            scratch.unlink(missing_ok=True)


def _relative(path: Path, base: Path) -> str:
    """From the list's folder, so that data sets can move together."""
    try:
        return Path(os.path.relpath(path.resolve(), base.resolve())).as_posix()
    except ValueError:  # another drive of Windows
        return path.resolve().as_posix()
