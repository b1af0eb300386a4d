"""CamVid as prepared for SegNet: 480x360 road scenes, 11 classes and void."""

from __future__ import annotations

from pathlib import Path

from espnetv2.data.masked_pictures import MaskedPictures, pair
from espnetv2.data.sample import folder, pictures_in

CLASSES = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign symbol",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
    "void",
)
"""By grey value; ESPNet v1 trains void like any class."""

PALETTE = (
    (128, 128, 128),
    (128, 0, 0),
    (192, 192, 128),
    (128, 64, 128),
    (60, 40, 222),
    (128, 128, 0),
    (192, 128, 128),
    (64, 64, 128),
    (64, 0, 128),
    (64, 64, 0),
    (0, 128, 192),
    (0, 0, 0),
)

IGNORE = 11


def read(root: Path, split: str) -> MaskedPictures:
    """One split of `images/{train,val,test}` with `labels/{train,val,test}/*.png`.

    Raises:
        UserError: A folder or a mask is missing, or there is no picture.
    """
    pictures = pictures_in(root / "images" / split, what="camvid")
    masks = folder(root / "labels" / split, what="camvid")
    return MaskedPictures(
        pair(pictures, masks, what="camvid"),
        CLASSES,
        palette=PALETTE,
        ignore=IGNORE,
        scored=IGNORE,
        values={value: value for value in range(len(CLASSES))},
    )
