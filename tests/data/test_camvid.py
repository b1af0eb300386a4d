import numpy as np
import pytest
from PIL import Image

from espnetv2.data import camvid
from espnetv2.errors import UserError


def _tree(root, *, suffixes=(".png", ".jpg", ".webp"), value=11):
    for kind in ("images", "labels"):
        (root / kind / "val").mkdir(parents=True)
    for number, suffix in enumerate(suffixes):
        Image.new("RGB", (6, 5)).save(root / "images/val" / f"f{number}{suffix}")
        Image.new("L", (6, 5), value).save(root / "labels/val" / f"f{number}.png")
    return root


def test_every_usual_picture_format_is_found_in_order(tmp_path):
    data = camvid.read(_tree(tmp_path), "val")
    assert [data[i].name for i in range(len(data))] == ["f0", "f1", "f2"]


def test_void_is_class_eleven_and_not_scored(tmp_path):
    data = camvid.read(_tree(tmp_path), "val")
    assert (data[0].target == 11).all()
    assert (data.classes[data.ignore], data.scored) == ("void", 11)


def test_label_twelve_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"f0\.png has label 12; this data set knows 0-11"):
        camvid.read(_tree(tmp_path, value=12), "val")[0]


def test_a_missing_split_lists_the_others(tmp_path):
    with pytest.raises(UserError, match=r"no folder .*test; .*images has val$"):
        camvid.read(_tree(tmp_path), "test")


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no pictures in"):
        camvid.read(_tree(tmp_path, suffixes=()), "val")


def test_classes_and_colours_are_as_many():
    assert len(camvid.CLASSES) == len(camvid.PALETTE) == len(set(camvid.PALETTE)) == 12


@pytest.mark.data
@pytest.mark.parametrize(("split", "frames"), [("train", 367), ("val", 101), ("test", 233)])
def test_real_splits_have_their_frames(shared, split, frames):
    data = camvid.read(shared / "data/camvid", split)
    assert len(data) == frames
    sample = data[frames - 1]
    assert sample.image.size == (480, 360)
    assert sample.target.shape == (360, 480)
    assert np.isin(sample.target, range(12)).all()
