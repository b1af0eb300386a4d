"""The data sets that networks are judged on, by name: pictures with their truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from espnetv2.data import image_folder, mask_folder, voc
from espnetv2.data.catalog import DATASETS
from espnetv2.data.coco_instances import CocoInstances
from espnetv2.data.csv_table import CsvTable
from espnetv2.data.voc_boxes import VocBoxes


def open_split(
    dataset: str, root: Path, split: str, classes: tuple[str, ...], *, squashed: bool = False
) -> Any:
    """Samples with `image`, `target` and `name`; see `tasks.evaluate.Pictures`.

    Args:
        dataset: Key of `tasks.protocols.DEFAULTS`, for pictures.
        classes: Of the network, for data sets whose files name classes.
        squashed: Whether VOC pictures were resized to one size, and masks were not.

    Raises:
        UserError: The folder or the split does not hold what is expected.
    """
    if dataset == "voc-boxes":
        return VocBoxes(root, split, classes)
    if dataset in ("coco-boxes", "coco-multilabel"):
        return CocoInstances(root, split, classes, multilabel=dataset == "coco-multilabel")
    if dataset == "voc":
        return voc.read(root, split, squashed=squashed)
    if dataset in ("csv", "csv-multilabel"):
        return CsvTable(root, split, classes, multilabel=dataset == "csv-multilabel")
    if dataset == "masks":
        return mask_folder.read(root, split, classes)
    if dataset == "imagefolder":
        return image_folder.read(root, split, classes=classes)
    return DATASETS[dataset](root, split)
