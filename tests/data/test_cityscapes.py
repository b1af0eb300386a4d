import numpy as np
import pytest
from PIL import Image

from espnetv2.data import cityscapes
from espnetv2.errors import UserError


def _tree(root, values):
    for kind in ("leftImg8bit", "gtFine"):
        (root / kind / "val" / "ulm").mkdir(parents=True)
    stem = "ulm_000000_000019"
    Image.new("RGB", (len(values), 1)).save(root / f"leftImg8bit/val/ulm/{stem}_leftImg8bit.png")
    mask = Image.fromarray(np.array([values], dtype=np.uint8))
    mask.save(root / f"gtFine/val/ulm/{stem}_gtFine_labelIds.png")
    return root


def test_raw_ids_become_train_ids(tmp_path):
    raw = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    target = cityscapes.read(_tree(tmp_path, raw), "val")[0].target
    assert target.tolist() == [list(range(19))]


def test_every_other_raw_id_is_void(tmp_path):
    raw = [0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30, 255]
    target = cityscapes.read(_tree(tmp_path, raw), "val")[0].target
    assert set(target.ravel().tolist()) == {255}


def test_train_ids_return_to_raw_ids_and_void_to_unlabeled():
    known = cityscapes.RAW_TO_TRAIN[cityscapes.TRAIN_TO_RAW[:19]]
    assert known.tolist() == list(range(19))
    assert cityscapes.TRAIN_TO_RAW[[0, 13, 18, 19, 255]].tolist() == [7, 26, 33, 0, 0]


def test_a_value_that_is_no_id_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"labelIds\.png has label 34"):
        cityscapes.read(_tree(tmp_path, [7, 34]), "val")[0]


def test_a_missing_mask_is_named(tmp_path):
    root = _tree(tmp_path, [7])
    next((root / "gtFine").rglob("*.png")).unlink()
    with pytest.raises(UserError, match=r"has no mask; expected .*_gtFine_labelIds\.png"):
        cityscapes.read(root, "val")


def test_a_split_without_pictures_is_an_error(tmp_path):
    (tmp_path / "leftImg8bit/val").mkdir(parents=True)
    with pytest.raises(UserError, match="no pictures in"):
        cityscapes.read(tmp_path, "val")


def test_categories_part_the_nineteen_classes():
    members = [index for group in cityscapes.CATEGORIES.values() for index in group]
    assert sorted(members) == list(range(19))
    assert len(cityscapes.CLASSES) == len(cityscapes.PALETTE) == 20


@pytest.mark.data
def test_a_real_frame_has_road_below_sky(shared):
    data = cityscapes.read(shared / "data/cityscapes", "train")
    target = data[0].target
    rows = np.arange(1024)[:, None] * np.ones((1, 2048))
    assert len(data) == 1
    assert rows[target == 0].mean() > rows[target == 10].mean() + 300
