"""Pictures with boxes in PASCAL VOC's XML files, one file a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import torch
from torch import Tensor

from espnetv2.data.boxes import BoxedSample, Boxes, box_fault
from espnetv2.data.pictures import PICTURE_SUFFIXES, open_picture
from espnetv2.data.sample import folder
from espnetv2.errors import UserError


@dataclass(frozen=True)
class Thing:
    """One object of an XML file; corners in pixels from 1, as VOC counts."""

    name: str
    corners: tuple[float, float, float, float]
    difficult: bool


class VocBoxes:
    """One list of `ImageSets/Main`, with `Annotations/*.xml` and `JPEGImages/`.

    Empty and inverted boxes are left out and named in `notes`.

    Args:
        classes: Names by index, without background; those that occur, sorted, by default.

    Raises:
        UserError: A folder, list or XML file is missing or damaged, or a name is no class.
    """

    palette: tuple[tuple[int, int, int], ...] | None = None

    def __init__(self, root: Path, split: str, classes: Sequence[str] | None = None) -> None:
        tree = voc_tree(root)
        self.names = listed(tree / "ImageSets" / "Main", split)
        self.pictures = folder(tree / "JPEGImages", what="voc-boxes")
        annotations = folder(tree / "Annotations", what="voc-boxes")
        self.things: list[list[Thing]] = []
        self.notes: list[str] = []
        for name in self.names:
            self.things.append(self._sound(annotations / f"{name}.xml"))
        found = sorted({thing.name for things in self.things for thing in things})
        self.classes = tuple(found if classes is None else classes)
        self.shown_classes = self.classes
        if stray := sorted(set(found) - set(self.classes)):
            raise UserError(
                f"voc-boxes: {split} has objects {stray[0]!r}, which is none of the classes "
                f"{', '.join(self.classes)}; add it to the classes or mend the XML files"
            )
        if not found:
            raise UserError(f"voc-boxes: no boxes in the split {split} of {tree}; draw some")

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> BoxedSample:
        name, things = self.names[index], self.things[index]
        image = open_picture(picture_of(self.pictures, name))
        corners = torch.tensor([thing.corners for thing in things]).reshape(-1, 4) - 1
        limit = torch.tensor([image.width, image.height] * 2)
        corners = torch.minimum(corners.clamp(min=0), limit)
        return BoxedSample(
            image,
            Boxes(
                boxes=corners,
                labels=self._labels(things),
                difficult=torch.tensor([thing.difficult for thing in things], dtype=torch.bool),
                crowd=torch.zeros(len(things), dtype=torch.bool),
                areas=(corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1]),
                size=(image.height, image.width),
                name=name,
            ),
            name,
        )

    def counts(self, index: int, classes: int) -> Tensor:
        """Boxes per class that training uses."""
        kept = [thing for thing in self.things[index] if not thing.difficult]
        return torch.bincount(self._labels(kept) - 1, minlength=classes)

    def _labels(self, things: Sequence[Thing]) -> Tensor:
        return torch.tensor([self.classes.index(thing.name) + 1 for thing in things]).long()

    def _sound(self, path: Path) -> list[Thing]:
        kept = []
        for thing in read_things(path):
            if fault := box_fault(thing.corners):
                self.notes.append(f"{path}: box of {thing.name!r} is {fault}; left out")
            else:
                kept.append(thing)
        return kept


def read_things(path: Path) -> list[Thing]:
    """The objects of one XML file, faulty boxes included.

    Raises:
        UserError: The file is missing, is no XML, or lacks a number.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except FileNotFoundError as error:
        raise UserError(
            f"voc-boxes: no annotation {path}; add it or take the name off the list"
        ) from error
    except (ElementTree.ParseError, OSError) as error:
        raise UserError(f"voc-boxes: {path} cannot be read: {error}; write it again") from error
    try:
        return [_thing(element) for element in root.iter("object")]
    except (TypeError, ValueError) as error:
        raise UserError(
            f"voc-boxes: {path} has an object without name or whole box; mend it"
        ) from error


def voc_tree(root: Path) -> Path:
    """The folder with JPEGImages: the root, `VOC2012/`, `VOC2007/`, the same in `VOCdevkit/`.

    Raises:
        UserError: There is none.
    """
    for base in (root, root / "VOCdevkit"):
        for tree in (base, base / "VOC2012", base / "VOC2007"):
            if (tree / "JPEGImages").is_dir():
                return tree
    raise UserError(f"voc: no folder JPEGImages in {root}; expected the tree of VOC2012")


def listed(lists: Path, split: str) -> list[str]:
    """The picture names of a split.

    Raises:
        UserError: No such list, or it is empty; names those that exist.
    """
    path = folder(lists, what="voc") / f"{split}.txt"
    if not path.is_file():
        known = ", ".join(sorted(entry.stem for entry in lists.glob("*.txt"))) or "none"
        raise UserError(f"voc: no list {path}; {lists} has {known}")
    names = [line.split()[0] for line in path.read_text("utf-8").splitlines() if line.strip()]
    if not names:
        raise UserError(f"voc: the list {path} is empty; write one picture name a line")
    return names


def picture_of(base: Path, name: str) -> Path:
    """The picture file of a name without suffix; `.jpg` where there is none."""
    usual = base / f"{name}.jpg"
    if usual.is_file():
        return usual
    others = (base / f"{name}{suffix}" for suffix in sorted(PICTURE_SUFFIXES))
    return next((path for path in others if path.is_file()), usual)


def _thing(element: ElementTree.Element) -> Thing:
    name, box = element.findtext("name"), element.find("bndbox")
    if not name or box is None:
        raise ValueError("no name or box")
    sides = [float(box.findtext(side, "")) for side in ("xmin", "ymin", "xmax", "ymax")]
    difficult = (element.findtext("difficult") or "0").strip() == "1"
    return Thing(name.strip(), (sides[0], sides[1], sides[2], sides[3]), difficult)
