import json

import pytest

import tiny_sets
from espnetv2.data.coco_instances import CocoInstances
from espnetv2.errors import UserError

TRAIN = "annotations/instances_train.json"


def test_labels_follow_the_sorted_ids_whatever_the_gaps(tmp_path):
    root = tiny_sets.coco(tmp_path, categories=((90, "cat"), (7, "cow"), (3, "dog")))
    assert CocoInstances(root, "train").classes == ("dog", "cow", "cat")
    boxes = CocoInstances(root, "train")[0].target
    assert boxes.labels.tolist() == [2, 1]
    assert boxes.boxes.tolist() == [[5, 6, 25, 36], [0, 0, 8, 8]]
    assert boxes.crowd.tolist() == [False, True]


def test_the_official_folders_are_found(tmp_path):
    root = tiny_sets.coco(tmp_path)
    (root / "images/train").rename(root / "train")
    assert CocoInstances(root, "train")[0].image.size == (48, 40)


def test_an_empty_box_is_left_out_but_its_class_is_present(tmp_path):
    root = tiny_sets.coco(tmp_path, [(1, 7, 5, 6, 0, 30, 0), (1, 3, 1, 1, 5, -2, 0)])
    data = CocoInstances(root, "train")
    assert len(data[0].target.boxes) == 0
    assert ["empty" in data.notes[0], "inverted" in data.notes[1]] == [True, True]
    assert CocoInstances(root, "train", multilabel=True).present(0).tolist() == [1, 1]


def _edit(change):
    def ruin(root):
        path = root / TRAIN
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return ruin


@pytest.mark.parametrize(
    ("ruin", "message"),
    [
        (lambda root: (root / "annotations/instances_train.json").unlink(), "splits val: name one"),
        (
            lambda root: (root / "annotations/instances_train.json").write_text("{"),
            "cannot be read",
        ),
        (_edit(lambda c: c.pop("annotations")), "has no list 'annotations'"),
        (_edit(lambda c: c["annotations"][0].pop("bbox")), "lacks 'bbox' in an entry"),
        (_edit(lambda c: c["annotations"][0].update(category_id=55)), "annotation 0 of .* unknown"),
        (_edit(lambda c: c["images"].clear()), "unknown picture"),
    ],
)
def test_what_is_missing_or_damaged_is_one_line(tmp_path, ruin, message):
    root = tiny_sets.coco(tmp_path)
    ruin(root)
    with pytest.raises(UserError, match=message):
        CocoInstances(root, "train")


def test_other_categories_in_another_split_are_an_error(tmp_path):
    with pytest.raises(UserError, match=r"the 2 categories of .* are not the 2 classes wanted"):
        CocoInstances(tiny_sets.coco(tmp_path), "train", ("cat", "dog"))


def test_a_picture_of_another_size_is_an_error(tmp_path):
    root = tiny_sets.coco(tmp_path)
    tiny_sets.picture(root / "images/train/1.png", size=(30, 30))
    with pytest.raises(UserError, match=r"1\.png is 30x30, but the JSON says 48x40"):
        CocoInstances(root, "train")[0]
