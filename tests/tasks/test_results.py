import json

import numpy as np
import pytest
from PIL import Image

from espnetv2.data.voc import CLASSES, PALETTE
from espnetv2.errors import UserError
from espnetv2.tasks.results import Classification, Detections, SegmentationMask


def _mask():
    mask = np.zeros((10, 20), dtype=np.uint8)
    mask[:5] = 15
    mask[0, :10] = 20
    return SegmentationMask(mask, CLASSES, PALETTE)


def _detections():
    return Detections(
        np.array([[1, 2, 30.123456, 40], [5, 5, 9, 9]], dtype=np.float32),
        np.array([1, 0]),
        np.array([0.9, 0.2], dtype=np.float32),
        ("cat", "dog"),
    )


def test_shares_are_sorted_and_sum_to_one():
    shares = _mask().shares
    assert shares == {"background": 0.5, "person": 0.45, "tvmonitor": 0.05}
    assert list(shares) == ["background", "person", "tvmonitor"]


def test_a_saved_mask_keeps_its_indices_and_colours(tmp_path):
    _mask().save(tmp_path / "m.png")
    with Image.open(tmp_path / "m.png") as saved:
        assert saved.mode == "P"
        assert (np.array(saved) == _mask().mask).all()
        assert saved.convert("RGB").getpixel((19, 0)) == PALETTE[15]


@pytest.mark.parametrize("result", [_mask(), _detections(), Classification(("a",), (0.5,))])
def test_every_result_is_json_and_can_be_saved_as_it(result, tmp_path):
    result.save(tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text()) == result.to_json()


@pytest.mark.parametrize("result", [_mask(), _detections(), Classification(("a",), (0.5,))])
def test_another_suffix_is_refused_and_nothing_written(result, tmp_path):
    with pytest.raises(UserError, match=r"r\.txt"):
        result.save(tmp_path / "r.txt")
    assert not list(tmp_path.iterdir())


def test_detections_are_told_with_names_and_pixels():
    first = _detections().to_json()["detections"][0]
    assert first == {"label": "dog", "score": 0.9, "box": [1.0, 2.0, 30.12, 40.0]}


def test_classification_tells_its_top():
    told = Classification(("cat", "dog"), (0.75, 0.25)).to_json()["top"]
    assert told == [{"label": "cat", "score": 0.75}, {"label": "dog", "score": 0.25}]


@pytest.mark.parametrize("result", [_mask(), _detections(), Classification(("a",), (0.5,))])
@pytest.mark.parametrize("size", [(32, 32), (20, 10), (1280, 720)])
def test_drawing_keeps_the_pictures_size_and_leaves_it_alone(result, size):
    image = Image.new("RGB", size, (90, 90, 90))
    drawn = result.draw(image)
    assert (drawn.size, drawn.mode) == (size, "RGB")
    assert image.getextrema() == ((90, 90),) * 3
    assert drawn.getextrema() != ((90, 90),) * 3


def test_weak_boxes_are_not_drawn():
    image = Image.new("RGB", (64, 64))
    weak = Detections(_detections().boxes[1:], np.array([0]), np.array([0.2]), ("cat",))
    assert weak.draw(image).getextrema() == ((0, 0),) * 3
