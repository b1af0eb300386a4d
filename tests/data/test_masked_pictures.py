import numpy as np
import pytest
from PIL import Image

from espnetv2.data.masked_pictures import MaskedPictures, pair
from espnetv2.errors import UserError


def _set(tmp_path, mask, *, size=(4, 3), mode=None, same_size=True):
    picture, file = tmp_path / "a.png", tmp_path / "m.png"
    Image.new("RGB", size, (10, 20, 30)).save(picture)
    image = Image.fromarray(np.asarray(mask, dtype=np.uint8))
    (image.convert(mode) if mode else image).save(file)
    return MaskedPictures(
        [(picture, file)],
        ("road", "car"),
        palette=((0, 0, 0), (1, 1, 1)),
        ignore=255,
        values={7: 0, 26: 1, 0: 255, 1: 255},
        same_size=same_size,
    )


def test_values_are_mapped_to_targets(tmp_path):
    mask = [[7, 26, 0, 1], [7, 7, 26, 26], [0, 0, 0, 7]]
    sample = _set(tmp_path, mask)[0]
    expected = [[0, 1, 255, 255], [0, 0, 1, 1], [255, 255, 255, 0]]
    assert sample.target.tolist() == expected
    assert sample.target.dtype == np.uint8
    assert (sample.image.size, sample.image.mode, sample.name) == ((4, 3), "RGB", "a")


def test_a_palette_mask_gives_indices_not_colours(tmp_path):
    data = _set(tmp_path, np.full((3, 4), 7))
    image = Image.fromarray(np.full((3, 4), 26, dtype=np.uint8)).convert("L")
    image.putpalette([200, 100, 50] * 256)
    image.save(tmp_path / "m.png")
    with Image.open(tmp_path / "m.png") as saved:
        assert saved.mode == "P"
    assert (data[0].target == 1).all()


def test_a_label_out_of_range_names_file_value_and_range(tmp_path):
    mask = np.full((3, 4), 7)
    mask[1, 1] = 30
    with pytest.raises(UserError, match=r"m\.png has label 30; .* knows 0-1, 7, 26$"):
        _set(tmp_path, mask)[0]


def test_a_mask_of_another_size_names_the_file_and_both_sizes(tmp_path):
    with pytest.raises(UserError, match=r"m\.png is 3x3 but its picture is 4x3"):
        _set(tmp_path, np.full((3, 3), 7))[0]
    assert _set(tmp_path, np.full((3, 3), 7), same_size=False)[0].target.shape == (3, 3)


def test_a_colour_mask_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"m\.png is a picture of mode RGB"):
        _set(tmp_path, np.full((3, 4), 7), mode="RGB")[0]


def test_a_damaged_mask_is_named(tmp_path):
    data = _set(tmp_path, np.full((3, 4), 7))
    (tmp_path / "m.png").write_bytes(b"not a picture")
    with pytest.raises(UserError, match=r"m\.png cannot be read"):
        data[0]


def test_a_picture_without_mask_is_named(tmp_path):
    (tmp_path / "b.png").touch()
    pictures = [tmp_path / "x" / "b.webp", tmp_path / "x" / "c.webp"]
    with pytest.raises(UserError, match=r"picture .*c\.webp has no mask; expected .*c\.png"):
        pair(pictures, tmp_path, what="camvid")
