"""Own segmentation data: a folder of pictures beside a folder of masks, perhaps a small YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from espnetv2.data.masked_pictures import MaskedPictures, pair
from espnetv2.data.sample import folder, pictures_in
from espnetv2.data.voc import bit_palette
from espnetv2.errors import UserError

IGNORE = 255
_MASK_FOLDERS = ("masks", "labels", "annotations")
_ANY = MaskedPictures([], (), palette=(), ignore=IGNORE, values={v: v for v in range(256)})


@dataclass(frozen=True)
class Layout:
    """What `data.yaml` may say.

    Attributes:
        names: Class by grey value; several values may share a class. None: found in the masks.
        images: Folder of pictures, as is `masks` of masks, relative to the root.
        ignore: Grey values that count as unlabelled.
    """

    names: Mapping[int, str] | None = None
    images: str = "images"
    masks: str | None = None
    ignore: tuple[int, ...] = field(default=(IGNORE,))


def read(root: Path, split: str, classes: Sequence[str] | None = None) -> MaskedPictures:
    """Read `images/<split>/` beside `masks/<split>/` (or `labels/`), masks as PNG.

    `data.yaml` in the root may name the classes (a list, or grey value: name), the folders
    `images` and `masks`, and the values to `ignore`. Without it the values found in the split's
    masks are the classes, and 255 is ignored.

    Raises:
        UserError: A folder or mask is missing; the YAML has an error; masks only hold 0 and 255.
    """
    layout = read_layout(root)
    pairs = find_pairs(root, split, layout)
    names = layout.names
    if names is None:
        count = len(classes) if classes is not None else _found_classes(pairs, layout.ignore)
        given = classes or [f"class {value}" for value in range(count)]
        names = dict(enumerate(given))
    order = tuple(dict.fromkeys(names[value] for value in sorted(names)))
    if classes is not None and set(classes) != set(order):
        raise UserError(
            f"masks: classes {', '.join(classes)} are not those of {root / 'data.yaml'} "
            f"({', '.join(order)}); name them in one place"
        )
    order = tuple(classes) if classes is not None else order
    values = {value: order.index(name) for value, name in names.items()}
    values.update({value: IGNORE for value in layout.ignore if value not in values})
    _refuse_black_and_white(pairs, values)
    palette = bit_palette(len(order))
    return MaskedPictures(pairs, order, palette=palette, ignore=IGNORE, values=values)


def read_layout(root: Path) -> Layout:
    """What `data.yaml` says, or the defaults.

    Raises:
        UserError: It is no YAML, or has an unknown key or a wrong type.
    """
    path = root / "data.yaml"
    if not path.is_file():
        return Layout()
    try:
        content: Any = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"masks: {path} cannot be read: {reason}; mend it") from error
    if not isinstance(content, dict) or set(content) - {"classes", "images", "masks", "ignore"}:
        raise UserError(f"masks: {path} may have the keys classes, images, masks and ignore only")
    named = content.get("classes")
    if isinstance(named, list):
        named = dict(enumerate(named))
    ignore = content.get("ignore", IGNORE)
    ignored = tuple(ignore) if isinstance(ignore, list) else (ignore,)
    mapped = named is None or isinstance(named, dict)
    if not mapped or not all(
        isinstance(value, int) and 0 <= value <= 255 for value in [*(named or {}), *ignored]
    ):
        raise UserError(
            f"masks: in {path}, classes must be a list of names or 'value: name' lines, and "
            "ignore a value or a list; values are 0-255"
        )
    names = None if named is None else {value: str(name) for value, name in named.items()}
    return Layout(names, content.get("images", "images"), content.get("masks"), ignored)


def find_pairs(root: Path, split: str, layout: Layout) -> list[tuple[Path, Path]]:
    """Picture and mask files of a split."""
    images = folder(root / layout.images, what="masks")
    masks = mask_root(root, layout)
    return pair(pictures_in(images / split, what="masks"), masks / split, what="masks")


def mask_root(root: Path, layout: Layout) -> Path:
    """The folder of masks, before the split."""
    if layout.masks is not None:
        return folder(root / layout.masks, what="masks")
    for name in _MASK_FOLDERS:
        if (root / name).is_dir():
            return root / name
    return folder(root / _MASK_FOLDERS[0], what="masks")


def _found_classes(pairs: Sequence[tuple[Path, Path]], ignore: Sequence[int]) -> int:
    seen: set[int] = set()
    for _, mask in pairs:
        seen.update(np.unique(_ANY.read_mask(mask)).tolist())
    if seen == {0, 255}:
        raise _black_and_white(pairs[0][1])
    return max(seen - set(ignore), default=0) + 1


def _refuse_black_and_white(pairs: Sequence[tuple[Path, Path]], values: Mapping[int, int]) -> None:
    if values.get(255) != IGNORE:
        return
    seen: set[int] = set()
    for _, mask in pairs[:8]:
        seen.update(np.unique(_ANY.read_mask(mask)).tolist())
    if seen == {0, 255}:
        raise _black_and_white(pairs[0][1])


def _black_and_white(mask: Path) -> UserError:
    return UserError(
        f"masks: {mask} and others hold only 0 and 255, and 255 means ignored; say what it is in "
        "data.yaml: 'classes: {0: background, 255: object}'"
    )
