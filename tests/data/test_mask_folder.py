import numpy as np
import pytest

import tiny_sets
from espnetv2.data import mask_folder
from espnetv2.errors import UserError


def test_classes_are_the_values_found(tmp_path):
    data = mask_folder.read(tiny_sets.masks(tmp_path, values=(0, 1, 2, 255)), "train")
    assert data.classes == ("class 0", "class 1", "class 2")
    assert np.unique(data[0].target).tolist() == [0, 1, 2, 255]


def test_the_yaml_names_and_maps_values(tmp_path):
    root = tiny_sets.masks(tmp_path, values=(0, 255, 7), images="photos", labels="truth")
    (root / "data.yaml").write_text(
        "images: photos\nmasks: truth\nignore: 7\nclasses: {0: background, 255: crack}\n"
    )
    data = mask_folder.read(root, "val")
    assert data.classes == ("background", "crack")
    assert np.unique(data[0].target).tolist() == [0, 1, 255]


def test_values_may_share_a_class(tmp_path):
    root = tiny_sets.masks(tmp_path, values=(0, 1, 2))
    (root / "data.yaml").write_text("classes: {0: road, 1: car, 2: car}\n")
    data = mask_folder.read(root, "train")
    assert (data.classes, np.unique(data[0].target).tolist()) == (("road", "car"), [0, 1])


@pytest.mark.parametrize("classes", [None, ("background", "object")])
def test_black_and_white_masks_are_refused_with_the_remedy(tmp_path, classes):
    root = tiny_sets.masks(tmp_path, values=(0, 255))
    with pytest.raises(UserError, match=r"hold only 0 and 255.*data\.yaml: 'classes: \{0: b"):
        mask_folder.read(root, "train", classes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classes: [a, b", "cannot be read"),
        ("clases: [a, b]", "may have the keys classes, images, masks and ignore only"),
        ("classes: 3", "classes must be a list of names"),
        ("classes: {a: 3}", "values are 0-255"),
        ("classes: {300: a}", "values are 0-255"),
        ("- a", "may have the keys"),
    ],
)
def test_a_faulty_yaml_is_one_line(tmp_path, text, message):
    root = tiny_sets.masks(tmp_path)
    (root / "data.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        mask_folder.read(root, "train")
    assert "\n" not in str(caught.value)


def test_a_missing_mask_is_named(tmp_path):
    root = tiny_sets.masks(tmp_path)
    (root / "masks/train/1.png").unlink()
    with pytest.raises(UserError, match=r"1\.png has no mask; expected"):
        mask_folder.read(root, "train")
