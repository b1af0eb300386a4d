"""A folder's layout is recognised, or the answer says what was looked for."""

import pytest

import tiny_sets
from espnetv2.data.layout import CLUES, recognize_layout
from espnetv2.data.sources import FORMATS
from espnetv2.errors import UserError


def classes_and_table(root):
    tiny_sets.imagefolder(root)
    tiny_sets.table(root, [("train/cat/0.png", "cat")])


def coco_with_its_own_split_names(root):
    tiny_sets.coco(root)
    for split in ("train", "val"):
        name = root / "annotations" / f"instances_{split}.json"
        name.rename(name.with_name(f"instances_{split}2017.json"))


LAYOUTS = {
    "imagefolder": ("classification", tiny_sets.imagefolder, "train"),
    "csv": ("classification", classes_and_table, "train"),
    "masks": ("segmentation", tiny_sets.masks, "train"),
    "camvid": ("segmentation", tiny_sets.camvid, "train"),
    "voc-boxes": ("detection", tiny_sets.voc_boxes, "train"),
    "coco-boxes": ("detection", coco_with_its_own_split_names, "train2017"),
    "coco-multilabel": ("multilabel", tiny_sets.coco, "train"),
}


@pytest.mark.parametrize("format", LAYOUTS)
def test_layouts_are_told_apart(format, tmp_path):
    task, make, split = LAYOUTS[format]
    make(tmp_path)
    assert recognize_layout(tmp_path, "train", task=task) == (format, split)


def test_every_clue_is_a_format_of_its_task():
    for task, clues in CLUES.items():
        assert {format for format, _ in clues} <= {k for k, v in FORMATS.items() if task in v.tasks}


def test_an_empty_folder_is_told_what_was_looked_for(tmp_path):
    with pytest.raises(UserError, match=r"holds none of train\.csv, or train-\*\.tar, or train; "):
        recognize_layout(tmp_path, "train", task="classification")
    with pytest.raises(UserError, match="is not a folder"):
        recognize_layout(tmp_path / "no", "train", task="detection")
