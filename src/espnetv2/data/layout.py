"""Which layout a folder of training data has, told from what lies in it."""

from __future__ import annotations

from pathlib import Path

from espnetv2.errors import UserError

CLUES: dict[str, tuple[tuple[str, str], ...]] = {
    "classification": (
        ("csv", "{split}.csv"),
        ("webdataset", "{split}-*.tar"),
        ("imagefolder", "{split}"),
    ),
    "multilabel": (("csv", "{split}.csv"), ("coco-multilabel", "annotations/*.json")),
    "segmentation": (
        ("masks", "masks"),
        ("cityscapes", "leftImg8bit"),
        ("voc-seg", "SegmentationClass"),
        ("voc-seg", "VOC*"),
        ("camvid", "labels"),
    ),
    "detection": (("voc-boxes", "Annotations"), ("coco-boxes", "annotations/*.json")),
}
"""Per task, formats of `data.sources.FORMATS` with what must be there; the first that fits."""


def recognize_layout(root: Path, split: str, *, task: str) -> tuple[str, str]:
    """The format of a folder, and the name of its split (COCO's are called `train2017`).

    Raises:
        UserError: The folder does not exist or has no layout that the task can be trained on.
    """
    if not root.is_dir():
        raise UserError(f"{root} is not a folder; give the data set's with --data")
    for format, pattern in CLUES[task]:
        found = sorted(root.glob(pattern.format(split=split)))
        if found:
            return format, _coco_split(root, split) if format.startswith("coco") else split
    wanted = ", or ".join(pattern.format(split=split) for _, pattern in CLUES[task])
    raise UserError(
        f"{root} holds none of {wanted}; lay it out as one of docs/datasets.md, or name its layout "
        "with --set data.format=FORMAT"
    )


def _coco_split(root: Path, split: str) -> str:
    names = [path.stem.rpartition("_")[2] for path in root.glob("annotations/instances_*.json")]
    return next((name for name in sorted(names) if name.startswith(split)), split)
