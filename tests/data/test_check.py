import json
import shutil

import pytest
from PIL import Image

import tiny_sets
from espnetv2.data.check import check_data
from espnetv2.errors import UserError


def _kinds(format, root, splits=("train", "val")):
    return [problem.kind for problem in check_data(format, root, splits)]


@pytest.mark.parametrize(
    ("format", "make"),
    [
        ("imagefolder", tiny_sets.imagefolder),
        ("masks", tiny_sets.masks),
        ("camvid", tiny_sets.camvid),
        ("voc-boxes", tiny_sets.voc_boxes),
        ("coco-boxes", tiny_sets.coco),
        ("coco-multilabel", tiny_sets.coco),
    ],
)
def test_sound_data_has_no_problem(tmp_path, format, make):
    assert check_data(format, make(tmp_path), ["train", "val"]) == []


def test_a_sound_table_has_no_problem(tmp_path):
    for number, split in enumerate(("train", "val")):
        for i in range(2):
            tiny_sets.picture(tmp_path / f"{split}{i}.png", seed=10 * number + i)
        rows = [(f"{split}0.png", "cat"), (f"{split}1.png", "dog")]
        tiny_sets.table(tmp_path, rows, name=f"{split}.csv")
    assert check_data("csv", tmp_path, ["train", "val"]) == []


def _no_mask(root):
    (root / "masks/train/1.png").unlink()


def _no_picture(root):
    (root / "images/train/1.png").unlink()


def _small_mask(root):
    tiny_sets.mask(root / "masks/train/1.png", size=(30, 40))


def _colour_mask(root):
    Image.new("RGB", (48, 40)).save(root / "masks/train/1.png")


def _stray(root):
    (root / "data.yaml").write_text("classes: [road, car]")
    tiny_sets.mask(root / "masks/train/1.png", values=(0, 1, 9))


def _gap(root):
    tiny_sets.mask(root / "masks/train/1.png", values=(0, 1, 37))
    tiny_sets.mask(root / "masks/val/1.png", values=(0, 1, 37))


def _broken_picture(root):
    (root / "images/train/1.png").write_bytes(b"\x89PNG\r\n\x1a\n")


def _broken_mask(root):
    (root / "masks/train/1.png").write_bytes(b"none")


def _twin(root):
    shutil.copy(root / "images/train/1.png", root / "images/val/1.png")


def _repeat(root):
    shutil.copy(root / "images/train/1.png", root / "images/train/2.png")


@pytest.mark.parametrize(
    ("ruin", "kinds"),
    [
        (_no_mask, ["no-mask"]),
        (_no_picture, ["no-picture"]),
        (_small_mask, ["size"]),
        (_colour_mask, ["mask-mode"]),
        (_stray, ["stray-label"]),
        (_gap, ["label-gap", "label-gap"]),
        (_broken_picture, ["unreadable"]),
        (_broken_mask, ["unreadable"]),
        (_twin, ["duplicate"]),
        (_repeat, ["repeated"]),
    ],
)
def test_what_ruins_masks_is_found(tmp_path, ruin, kinds):
    root = tiny_sets.masks(tmp_path)
    ruin(root)
    assert _kinds("masks", root) == kinds


def test_black_and_white_masks_are_found(tmp_path):
    assert "black-and-white" in _kinds("masks", tiny_sets.masks(tmp_path, values=(0, 255)))


def test_faulty_boxes_are_found(tmp_path):
    rows = [("cat", 5, 6, 5, 9, 0), ("cat", 9, 9, 5, 5, 0), ("cat", 5, 6, 80, 30, 0)]
    rows += [("dog", 1, 1, 9, 9, 0)]
    root = tiny_sets.voc_boxes(tmp_path, rows, count=1)
    found = check_data("voc-boxes", root, ["train"])
    assert [problem.kind for problem in found] == ["box", "box", "box-outside"]
    assert "box of 'cat' is empty (5 6 5 9)" in found[0].line
    assert "inverted" in found[1].what


def test_faulty_coco_entries_are_found(tmp_path):
    rows = [(1, 7, 5, 6, 0, 3, 0), (9, 7, 5, 6, 3, 3, 0), (1, 3, 40, 6, 30, 3, 0)]
    root = tiny_sets.coco(tmp_path, rows)
    assert _kinds("coco-boxes", root, ["train"]) == ["box", "annotation", "box-outside"]


def test_a_picture_of_another_size_than_the_json_says(tmp_path):
    root = tiny_sets.coco(tmp_path)
    tiny_sets.picture(root / "images/train/1.png", size=(50, 50))
    assert _kinds("coco-boxes", root) == ["size"]


def test_a_missing_annotation_or_picture_is_found(tmp_path):
    root = tiny_sets.voc_boxes(tmp_path)
    (root / "Annotations/train0.xml").unlink()
    (root / "JPEGImages/train1.png").unlink()
    assert _kinds("voc-boxes", root) == ["annotation", "unreadable"]


def test_classes_of_one_split_only_are_found(tmp_path):
    root = tiny_sets.imagefolder(tmp_path)
    tiny_sets.picture(root / "val/bird/0.png", seed=77)
    shutil.rmtree(root / "val/cat")
    assert _kinds("imagefolder", root) == ["untrained-class", "unjudged-class"]


def test_an_empty_class_folder_is_found(tmp_path):
    root = tiny_sets.imagefolder(tmp_path)
    (root / "train/eel").mkdir()
    assert _kinds("imagefolder", root) == ["empty"]


def test_hidden_files_are_no_pictures(tmp_path):
    root = tiny_sets.imagefolder(tmp_path)
    (root / "train/cat/._0.png").write_bytes(b"as some file systems leave them")
    assert _kinds("imagefolder", root) == []


def test_imbalance_is_a_remark(tmp_path):
    root = tiny_sets.imagefolder(tmp_path, each=1)
    for i in range(11):
        tiny_sets.picture(root / "train/dog" / f"more{i}.png", seed=500 + i)
    problems = check_data("imagefolder", root, ["train", "val"])
    assert [(problem.kind, problem.serious) for problem in problems] == [("imbalance", False)]
    assert "'cat' has 1, 'dog' 12" in problems[0].what


def test_serious_problems_come_first(tmp_path):
    root = tiny_sets.masks(tmp_path)
    _repeat(root)
    _small_mask(root)
    assert [problem.serious for problem in check_data("masks", root, ["train"])] == [True, False]


def test_progress_counts_to_the_end(tmp_path):
    calls = []
    check_data("masks", tiny_sets.masks(tmp_path), ["val"], progress=lambda *c: calls.append(c))
    assert calls == [("val", 1, 3), ("val", 2, 3), ("val", 3, 3)]


def test_an_unknown_format_or_folder_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"data format 'mask'; did you mean masks\?"):
        check_data("mask", tmp_path, ["train"])
    with pytest.raises(UserError, match=r"no folder .*nowhere"):
        check_data("masks", tmp_path / "nowhere", ["train"])


def test_a_json_without_its_lists_is_an_error(tmp_path):
    root = tiny_sets.coco(tmp_path)
    (root / "annotations/instances_train.json").write_text(json.dumps({"images": []}))
    with pytest.raises(UserError, match="has no list 'annotations'"):
        check_data("coco-boxes", root, ["train"])


@pytest.mark.data
def test_bccd_has_two_malformed_boxes_and_nothing_else(shared):
    problems = check_data("voc-boxes", shared / "data/bccd", ["train", "val", "test"])
    assert [problem.kind for problem in problems if problem.serious] == ["box", "box"]


@pytest.mark.data
def test_camvid_is_sound(shared):
    problems = check_data("camvid", shared / "data/camvid", ["val"])
    assert not [problem for problem in problems if problem.serious]
