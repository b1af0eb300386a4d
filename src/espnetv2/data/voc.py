"""PASCAL VOC: 20 things and background; segmentation masks are palette pictures."""

from __future__ import annotations

from pathlib import Path

from espnetv2.data.masked_pictures import MaskedPictures, pair
from espnetv2.data.sample import folder, pictures_in
from espnetv2.errors import UserError

DETECTION_CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)

CLASSES = ("background", *DETECTION_CLASSES)

IGNORE = 255


def bit_palette(colours: int) -> tuple[tuple[int, int, int], ...]:
    """The colours of VOC masks, by their rule: neighbours in number are far apart in colour.

    The bits of the index are dealt to red, green and blue in turn, filling each from its
    highest bit down.

    >>> bit_palette(5)
    ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128))
    """
    return tuple(_colour(index) for index in range(colours))


def _colour(index: int) -> tuple[int, int, int]:
    channels = [0, 0, 0]
    for bit in range(8):
        channels[bit % 3] |= (index >> bit & 1) << (7 - bit // 3)
    return channels[0], channels[1], channels[2]


PALETTE = bit_palette(len(CLASSES))


def read(root: Path, split: str, *, squashed: bool = False) -> MaskedPictures:
    """One split of the VOC2012 tree, or a plain pair of folders `images/` and `masks/`.

    The tree may start at `root` itself, at `VOC2012/` or at `VOCdevkit/VOC2012/`; the split is a
    list in `ImageSets/Segmentation/`. In the plain layout the split is a folder in both, if there
    is one of that name, and otherwise everything.

    Args:
        root: Where the data set lies.
        split: "train", "val", "trainval" or another list or folder.
        squashed: Whether pictures were resized to one size while masks kept theirs.

    Raises:
        UserError: A folder, a list, a picture or a mask is missing.
    """
    tree = _tree(root)
    if tree is not None:
        pictures, masks = _listed(tree, split), folder(tree / "SegmentationClass", what="voc")
    else:
        if not (root / "images").is_dir():
            raise UserError(
                f"voc: neither JPEGImages/ nor images/ in {root}; expected the VOC2012 tree, "
                "or images/ and masks/"
            )
        part = split if (root / "images" / split).is_dir() else ""
        pictures = pictures_in(root / "images" / part, what="voc")
        masks = folder(root / "masks" / part, what="voc")
    return MaskedPictures(
        pair(pictures, masks, what="voc"),
        CLASSES,
        palette=PALETTE,
        ignore=IGNORE,
        values={value: value for value in (*range(len(CLASSES)), IGNORE)},
        same_size=not squashed,
    )


def _tree(root: Path) -> Path | None:
    for tree in (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"):
        if (tree / "JPEGImages").is_dir():
            return tree
    return None


def _listed(tree: Path, split: str) -> list[Path]:
    """The pictures that the split's list names, in its order."""
    lists = folder(tree / "ImageSets" / "Segmentation", what="voc")
    file = lists / f"{split}.txt"
    if not file.is_file():
        known = ", ".join(sorted(entry.stem for entry in lists.glob("*.txt"))) or "none"
        raise UserError(f"voc: no list {file}; {lists} has {known}")
    names = file.read_text(encoding="utf-8").split()
    if not names:
        raise UserError(f"voc: the list {file} is empty")
    return [_picture(tree / "JPEGImages", name, file) for name in names]


def _picture(base: Path, name: str, listed_in: Path) -> Path:
    for suffix in (".jpg", ".png", ".webp"):
        if (path := base / f"{name}{suffix}").is_file():
            return path
    raise UserError(f"voc: no picture {base / name}.jpg, but {listed_in} lists it")
