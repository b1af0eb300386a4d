import numpy as np
import pytest
from PIL import Image

from espnetv2.data import voc
from espnetv2.errors import UserError


def _tree(root, *, names=("b", "a"), listed="b\na\n"):
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for name in names:
        Image.new("RGB", (6, 5)).save(root / "JPEGImages" / f"{name}.jpg")
        mask = Image.new("L", (6, 5), 20)
        mask.putpalette([value for colour in voc.bit_palette(256) for value in colour])
        mask.save(root / "SegmentationClass" / f"{name}.png")
    (root / "ImageSets/Segmentation/val.txt").write_text(listed)


def _plain(root, *folders):
    for folder in folders:
        (root / "images" / folder).mkdir(parents=True)
        (root / "masks" / folder).mkdir(parents=True)
        Image.new("RGB", (6, 5)).save(root / "images" / folder / f"x{folder}.jpg")
        Image.new("L", (7, 8), 255).save(root / "masks" / folder / f"x{folder}.png")


@pytest.mark.parametrize("base", ["", "VOC2012", "VOCdevkit/VOC2012"])
def test_the_official_tree_is_found_and_read_in_the_lists_order(tmp_path, base):
    _tree(tmp_path / base)
    data = voc.read(tmp_path, "val")
    assert [data[0].name, data[1].name] == ["b", "a"]
    assert (data[0].target == 20).all()


def test_the_plain_layout_takes_all_or_the_splits_folder(tmp_path):
    _plain(tmp_path / "one", "")
    assert [voc.read(tmp_path / "one", "val", squashed=True)[0].name] == ["x"]
    _plain(tmp_path / "two", "train", "val")
    assert [voc.read(tmp_path / "two", "val", squashed=True)[0].name] == ["xval"]


def test_squashed_pictures_keep_their_masks_size_only_when_said(tmp_path):
    _plain(tmp_path, "")
    assert voc.read(tmp_path, "val", squashed=True)[0].target.shape == (8, 7)
    with pytest.raises(UserError, match="must be equally large"):
        voc.read(tmp_path, "val")[0]


def test_a_missing_list_names_those_there_are(tmp_path):
    _tree(tmp_path)
    with pytest.raises(UserError, match=r"no list .*test\.txt; .* has val$"):
        voc.read(tmp_path, "test")


def test_a_listed_picture_that_is_missing_is_named(tmp_path):
    _tree(tmp_path, listed="b\nz\n")
    with pytest.raises(UserError, match=r"no picture .*z\.jpg, but .*val\.txt lists it"):
        voc.read(tmp_path, "val")


def test_a_folder_of_another_kind_is_an_error(tmp_path):
    with pytest.raises(UserError, match="neither JPEGImages/ nor images/"):
        voc.read(tmp_path, "val")


def test_the_palette_follows_the_bit_rule():
    known = {0: (0, 0, 0), 7: (128, 128, 128), 12: (64, 0, 128), 15: (192, 128, 128)}
    assert {index: voc.PALETTE[index] for index in known} == known
    assert voc.bit_palette(256)[255] == (224, 224, 192)
    assert len(set(voc.bit_palette(256))) == 256


@pytest.mark.data
def test_real_masks_carry_the_computed_palette(shared):
    folder = shared / "data/voc2012_seg"
    with Image.open(next((folder / "fullres10/masks").glob("*.png"))) as mask:
        stored = np.reshape(mask.getpalette()[: 3 * 21], (-1, 3))
    assert stored.tolist() == [list(colour) for colour in voc.PALETTE]
    assert len(voc.read(folder / "fullres10", "val")) == 10
    squashed = voc.read(folder / "val_squashed274", "val", squashed=True)
    assert (len(squashed), squashed[0].image.size) == (110, (274, 274))
