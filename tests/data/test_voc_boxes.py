import pytest
import torch

import tiny_sets
from espnetv2.data.voc_boxes import VocBoxes
from espnetv2.errors import UserError


def test_coordinates_count_from_one_and_are_cut_at_the_border(tmp_path):
    root = tiny_sets.voc_boxes(tmp_path, [("cat", 0, 6, 60, 41, 0)])
    assert VocBoxes(root, "train")[0].target.boxes.tolist() == [[0, 5, 48, 40]]


def test_classes_are_found_sorted_or_taken_as_given(tmp_path):
    root = tiny_sets.voc_boxes(tmp_path)
    assert VocBoxes(root, "train").classes == ("cat", "dog")
    given = VocBoxes(root, "train", ("dog", "cow", "cat"))
    assert given[0].target.labels.tolist() == [3, 1]


def test_the_devkit_tree_is_found(tmp_path):
    tiny_sets.voc_boxes(tmp_path / "VOCdevkit/VOC2007")
    assert len(VocBoxes(tmp_path, "val")) == 2


def test_difficult_boxes_are_marked_and_not_counted(tmp_path):
    root = tiny_sets.voc_boxes(tmp_path, [("cat", 5, 6, 20, 30, 1), ("cat", 1, 1, 9, 9, 0)])
    boxes = VocBoxes(root, "train")
    assert boxes[0].target.difficult.tolist() == [True, False]
    assert len(boxes[0].target.trained()[0]) == 1
    assert torch.equal(boxes.counts(0, 1), torch.tensor([1]))


def _remove_xml(root):
    (root / "Annotations/train0.xml").unlink()


def _break_xml(root):
    (root / "Annotations/train0.xml").write_text("<annotation><object>")


def _no_number(root):
    (root / "Annotations/train0.xml").write_text(
        "<annotation><object><name>cat</name><bndbox><xmin>3</xmin></bndbox></object></annotation>"
    )


def _no_list(root):
    (root / "ImageSets/Main/train.txt").unlink()


def _empty_list(root):
    (root / "ImageSets/Main/train.txt").write_text("\n")


def _no_boxes(root):
    for path in (root / "Annotations").glob("train*"):
        path.write_text("<annotation/>")


@pytest.mark.parametrize(
    ("ruin", "message"),
    [
        (_remove_xml, r"no annotation .*train0\.xml; add it"),
        (_break_xml, r"train0\.xml cannot be read: .*; write it again"),
        (_no_number, r"train0\.xml has an object without name or whole box"),
        (_no_list, r"no list .*train\.txt; .* has val"),
        (_empty_list, r"train\.txt is empty"),
        (_no_boxes, "no boxes in the split train"),
    ],
)
def test_what_is_missing_or_damaged_is_one_line(tmp_path, ruin, message):
    root = tiny_sets.voc_boxes(tmp_path)
    ruin(root)
    with pytest.raises(UserError, match=message) as caught:
        VocBoxes(root, "train")
    assert "\n" not in str(caught.value)


def test_a_name_that_is_no_class_is_an_error(tmp_path):
    with pytest.raises(UserError, match="has objects 'dog', which is none of the classes cat"):
        VocBoxes(tiny_sets.voc_boxes(tmp_path), "train", ("cat",))
