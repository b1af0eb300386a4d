"""What a data set gives: a picture with its truth and its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from espnetv2.data.pictures import is_picture
from espnetv2.errors import UserError


@dataclass(frozen=True)
class Sample:
    """One picture with its truth.

    Attributes:
        image: RGB.
        target: A uint8 label map (H, W) of a segmentation set, a class index of a
            classification set.
        name: File name without the suffix; unique within the set's split.
    """

    image: Image.Image
    target: np.ndarray | int
    name: str


class Dataset(Protocol):
    """Samples by number, and the classes that their targets point to.

    Attributes:
        classes: Names by target value.
        palette: A colour per class, where the data set has one.
        ignore: The target value that says "not labelled", if there is one.
        scored: How many classes count, from the first; the rest is void.
        groups: Classes that are also scored together, by name.
    """

    @property
    def classes(self) -> tuple[str, ...]:
        """Names by target value."""
        ...

    @property
    def palette(self) -> tuple[tuple[int, int, int], ...] | None:
        """A colour per class."""
        ...

    @property
    def ignore(self) -> int | None:
        """The target value of unlabelled pixels."""
        ...

    @property
    def scored(self) -> int:
        """How many classes count."""
        ...

    @property
    def groups(self) -> Mapping[str, tuple[int, ...]]:
        """Classes that are also scored together."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


def folder(path: Path, *, what: str) -> Path:
    """The folder itself, if it is there.

    Raises:
        UserError: It is missing; names what stands beside it instead.
    """
    if path.is_dir():
        return path
    hint = "check --data"
    if path.parent.is_dir():
        beside = sorted(entry.name for entry in path.parent.iterdir() if entry.is_dir())[:8]
        hint = f"{path.parent} has {', '.join(beside) if beside else 'no folders'}"
    raise UserError(f"{what}: no folder {path}; {hint}")


def pictures_in(path: Path, *, what: str) -> list[Path]:
    """The picture files directly in a folder, sorted by name.

    Raises:
        UserError: The folder is missing or has no pictures.
    """
    files = sorted(
        entry
        for entry in folder(path, what=what).iterdir()
        if is_picture(entry) and not entry.name.startswith(".")
    )
    if not files:
        raise UserError(f"{what}: no pictures in {path}; expected .jpg, .png, .webp or the like")
    return files
