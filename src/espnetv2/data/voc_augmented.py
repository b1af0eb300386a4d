"""VOC segmentation with the masks of SBD beside it, where they are."""

from __future__ import annotations

from pathlib import Path

from espnetv2.data import voc
from espnetv2.data.masked_pictures import MaskedPictures
from espnetv2.data.voc_boxes import listed, picture_of, voc_tree
from espnetv2.errors import UserError


def read(root: Path, split: str) -> MaskedPictures:
    """Read a list of `ImageSets/Segmentation`; `trainaug` is the usual name of SBD's.

    A mask is taken from `SegmentationClass/`, or from `SegmentationClassAug/` where VOC has none.
    Without a VOC tree the plain layout (`images/`, `masks/`) is read.

    Raises:
        UserError: A folder, a list, a picture or a mask is missing.
    """
    if (root / "images").is_dir():
        return voc.read(root, split)
    tree = voc_tree(root)
    pairs = []
    for name in listed(tree / "ImageSets" / "Segmentation", split):
        picture = picture_of(tree / "JPEGImages", name)
        folders = (tree / "SegmentationClass", tree / "SegmentationClassAug")
        mask = next((m for base in folders if (m := base / f"{name}.png").is_file()), None)
        if mask is None or not picture.is_file():
            missing = picture if mask is not None else folders[0] / f"{name}.png"
            raise UserError(
                f"voc: no {missing}, but the list {split} has {name}; for SBD's masks fill "
                f"{folders[1]}"
            )
        pairs.append((picture, mask))
    return MaskedPictures(
        pairs,
        voc.CLASSES,
        palette=voc.PALETTE,
        ignore=voc.IGNORE,
        values={value: value for value in (*range(len(voc.CLASSES)), voc.IGNORE)},
    )
