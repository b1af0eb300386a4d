"""Pictures with label maps: the form that every segmentation set takes once its files are found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from espnetv2.data.pictures import open_picture
from espnetv2.data.sample import Sample
from espnetv2.errors import UserError

_ILLEGAL = -1


class MaskedPictures:
    """Pairs of picture and mask file, with values mapped to classes while reading.

    Args:
        pairs: Picture file and mask file.
        classes: Names by target value.
        palette: A colour per class.
        ignore: The target value of unlabelled pixels.
        values: Grey value in the file -> target value. A value that is not listed is an error,
            which is how a mask of another data set is found out.
        scored: How many classes count, from the first; all by default.
        groups: Classes that are also scored together, by name.
        same_size: Whether a mask must be as large as its picture; not so for pictures that were
            squashed to one size while their masks kept theirs.

    Raises:
        UserError: While reading: a mask of another size, with colours instead of grey values,
            or with a value that is not listed; names the file.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[Path, Path]],
        classes: tuple[str, ...],
        *,
        palette: tuple[tuple[int, int, int], ...],
        ignore: int,
        values: Mapping[int, int],
        scored: int | None = None,
        groups: Mapping[str, tuple[int, ...]] | None = None,
        same_size: bool = True,
    ) -> None:
        self.pairs = list(pairs)
        self.classes = classes
        self.palette = palette
        self.ignore = ignore
        self.scored = len(classes) if scored is None else scored
        self.groups = groups or {}
        self.same_size = same_size
        self._table = np.full(256, _ILLEGAL, dtype=np.int16)
        for value, target in values.items():
            self._table[value] = target

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        picture, mask = self.pairs[index]
        image = open_picture(picture)
        target = self.read_mask(mask)
        if self.same_size and target.shape != (image.height, image.width):
            raise UserError(
                f"mask {mask} is {target.shape[1]}x{target.shape[0]} but its picture is "
                f"{image.width}x{image.height}; they must be equally large"
            )
        return Sample(image, target, picture.stem)

    def read_mask(self, path: Path) -> np.ndarray:
        """The label map of one mask file.

        Shape: uint8 (H, W)
        """
        grey = _grey_values(path)
        labels: np.ndarray = self._table[grey]
        if (illegal := labels == _ILLEGAL).any():
            known = np.flatnonzero(self._table != _ILLEGAL).tolist()
            raise UserError(
                f"mask {path} has label {_ranges(np.unique(grey[illegal]).tolist())}; "
                f"this data set knows {_ranges(known)}"
            )
        return labels.astype(np.uint8)


def pair(pictures: Sequence[Path], masks: Path, *, what: str) -> list[tuple[Path, Path]]:
    """Each picture with the PNG of the same name in the folder of masks.

    Raises:
        UserError: A picture without a mask; names it.
    """
    pairs = [(picture, masks / f"{picture.stem}.png") for picture in pictures]
    for picture, mask in pairs:
        if not mask.is_file():
            raise UserError(f"{what}: picture {picture} has no mask; expected {mask}")
    return pairs


def read_list(path: Path) -> list[tuple[Path, Path]]:
    """Pairs from a text file, `picture TAB mask` a line, relative to the file's folder.

    Raises:
        UserError: The file is missing or empty, or a line is no pair or names a missing file.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise UserError(f"the list {path} cannot be read: {error}") from error
    pairs = []
    for number, line in enumerate(lines, start=1):
        picture, tab, mask = line.partition("\t")
        if not tab:
            raise UserError(f"the list {path}, line {number}: expected picture TAB mask")
        pairs.append((path.parent / picture, path.parent / mask))
        for file in pairs[-1]:
            if not file.is_file():
                raise UserError(f"the list {path}, line {number}: no file {file}")
    if not pairs:
        raise UserError(f"the list {path} is empty; write a line picture TAB mask")
    return pairs


def _grey_values(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            if image.mode not in ("L", "P", "1"):
                raise UserError(
                    f"mask {path} is a picture of mode {image.mode}; "
                    "expected one grey or palette value per pixel (mode L or P)"
                )
            return np.array(image, dtype=np.uint8)
    except OSError as error:
        raise UserError(f"mask {path} cannot be read: {error}") from error


def _ranges(values: list[int]) -> str:
    """Shorten 0, 1, 2, 255 to "0-2, 255"."""
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
