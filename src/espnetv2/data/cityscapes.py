"""Cityscapes: street scenes, 2048x1024, 19 classes that count.

A label has two numbers: the raw id in the files (0-33, and -1 for licence plates) and the train
id (0-18, everything else is void). Networks speak train ids, the server raw ids.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from espnetv2.data.masked_pictures import MaskedPictures
from espnetv2.data.sample import folder
from espnetv2.errors import UserError

CLASSES = (
    "road",
    "sidewalk",
    "building",
    "wall",
    "fence",
    "pole",
    "traffic light",
    "traffic sign",
    "vegetation",
    "terrain",
    "sky",
    "person",
    "rider",
    "car",
    "truck",
    "bus",
    "train",
    "motorcycle",
    "bicycle",
    "background",
)
"""By train id; the released networks have a 20th channel for everything else (D18)."""

PALETTE = (
    (128, 64, 128),
    (244, 35, 232),
    (70, 70, 70),
    (102, 102, 156),
    (190, 153, 153),
    (153, 153, 153),
    (250, 170, 30),
    (220, 220, 0),
    (107, 142, 35),
    (152, 251, 152),
    (70, 130, 180),
    (220, 20, 60),
    (255, 0, 0),
    (0, 0, 142),
    (0, 0, 70),
    (0, 60, 100),
    (0, 80, 100),
    (0, 0, 230),
    (119, 11, 32),
    (0, 0, 0),
)

CATEGORIES = {
    "flat": (0, 1),
    "construction": (2, 3, 4),
    "object": (5, 6, 7),
    "nature": (8, 9),
    "sky": (10,),
    "human": (11, 12),
    "vehicle": (13, 14, 15, 16, 17, 18),
}
"""The official groups of train ids, for the category score."""

IGNORE = 255

_RAW_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)

TRAIN_TO_RAW = np.zeros(256, dtype=np.uint8)
"""Train id -> raw id, for submissions; void and background become 0, "unlabeled"."""
TRAIN_TO_RAW[: len(_RAW_IDS)] = _RAW_IDS

RAW_TO_TRAIN = np.full(256, IGNORE, dtype=np.uint8)
"""Raw id -> train id; everything that does not count becomes 255."""
RAW_TO_TRAIN[list(_RAW_IDS)] = np.arange(len(_RAW_IDS))


def read(root: Path, split: str) -> MaskedPictures:
    """The fine annotations of one split, in the official folders.

    Expects `leftImg8bit/<split>/<city>/*_leftImg8bit.png` and
    `gtFine/<split>/<city>/*_gtFine_labelIds.png`.

    Raises:
        UserError: A folder or a mask is missing, or there is no picture.
    """
    base = folder(root / "leftImg8bit" / split, what="cityscapes")
    pictures = sorted(base.glob("*/*_leftImg8bit.png"))
    if not pictures:
        raise UserError(f"cityscapes: no pictures in {base}; expected <city>/*_leftImg8bit.png")
    pairs = []
    for picture in pictures:
        stem = picture.name.removesuffix("_leftImg8bit.png")
        mask = root / "gtFine" / split / picture.parent.name / f"{stem}_gtFine_labelIds.png"
        if not mask.is_file():
            raise UserError(f"cityscapes: picture {picture} has no mask; expected {mask}")
        pairs.append((picture, mask))
    return MaskedPictures(
        pairs,
        CLASSES,
        palette=PALETTE,
        ignore=IGNORE,
        scored=len(_RAW_IDS),
        groups=CATEGORIES,
        # 255 is how -1, the licence plate, looks in a byte
        values={raw: int(RAW_TO_TRAIN[raw]) for raw in (*range(34), 255)},
    )
