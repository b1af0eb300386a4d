"""The comparison of an artefact with its network."""

import numpy as np
import pytest
from PIL import Image

from espnetv2.deploy.verify import compare, compare_boxes, drawn_pictures, pictures_in
from espnetv2.errors import UserError


def test_the_largest_difference_is_relative_to_each_outputs_largest_value():
    def truth(x):
        return x, 100 * x

    def found(x):
        return x + np.array([[0.0, 0.01]]), 100 * x

    inputs = [(np.array([[1.0, 2.0]]),), (np.array([[4.0, -8.0]]),)]
    seen = compare(truth, found, inputs)
    assert seen.difference == pytest.approx(0.01 / 8)
    assert (seen.agreement, seen.inputs) == (1.0, 2)


def test_decisions_that_differ_are_counted():
    inputs = [(np.array([[1.0, 2.0]]),), (np.array([[3.0, 2.0]]),)]
    seen = compare(lambda x: [x], lambda x: [x[:, ::-1]], inputs)
    assert seen.agreement == 0.0
    masks = compare(
        lambda x: [x.astype(np.int64)],
        lambda x: [x.astype(np.int64) // 2],
        [(np.array([0.0, 1.0, 2.0, 0.0]),)],
        class_axis=None,
    )
    assert (masks.difference, masks.agreement) == (0.0, 0.5)


def test_no_number_is_no_likeness():
    seen = compare(lambda x: [x], lambda x: [x * np.nan], [(np.ones((1, 2)),)])
    assert seen.difference == np.inf


def detections(*rows):
    """Shape: boxes (1, K, 4), scores (1, K), labels (1, K); the last row fills up."""
    rows = [*rows, (0.0, 0.0, 0)]
    boxes = np.array([[x, x, x + 0.1, x + 0.1] for x, _, _ in rows])
    scores, labels = (np.array([row[place] for row in rows]) for place in (1, 2))
    return boxes[None], scores[None], labels[None]


BOXES = [(0.1, 0.9, 1), (0.3, 0.8, 0), (0.5, 0.6, 1), (0.7, 0.5, 2)]


@pytest.mark.parametrize(
    ("other", "difference", "agreement"),
    [
        (BOXES, 0.0, 1.0),
        (BOXES[::-1], 0.0, 1.0),  # the order is no matter
        (BOXES[:1] + BOXES[2:], 0.0, 0.75),  # one box less moves the others up
        ([*BOXES, (0.2, 0.7, 1)], 0.0, 1.0),
        ([(0.1, 0.891, 1), *BOXES[1:]], 0.01, 1.0),
        ([(0.109, 0.9, 1), *BOXES[1:]], 0.01, 1.0),
        ([(0.1, 0.9, 2), *BOXES[1:]], 0.0, 0.75),  # of another label
        ([(0.2, 0.9, 1), *BOXES[1:]], 0.0, 0.75),
        (BOXES[:1], np.inf, 0.25),
        ([(x, float("nan"), label) for x, _, label in BOXES], np.inf, 0.0),
    ],
)
def test_boxes_look_for_their_partners(other, difference, agreement):
    seen = compare_boxes(lambda x: detections(*BOXES), lambda x: detections(*other), [(None,)])
    assert seen.difference == pytest.approx(difference)
    assert seen.agreement == agreement


def test_pictures_are_taken_evenly_from_a_folder(tmp_path):
    for index in range(10):
        Image.new("RGB", (4, 4), (index, 0, 0)).save(tmp_path / f"{index}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    assert [p.getpixel((0, 0))[0] for p in pictures_in(tmp_path, limit=5)] == [0, 2, 4, 6, 8]
    with pytest.raises(UserError, match="is not a folder"):
        pictures_in(tmp_path / "none", limit=5)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no picture"):
        pictures_in(tmp_path / "empty", limit=5)


def test_drawn_pictures_are_the_same_every_time_and_all_different():
    first, again = drawn_pictures(3, (40, 60)), drawn_pictures(3, (40, 60))
    assert [p.size for p in first] == [(60, 40)] * 3
    assert [p.tobytes() for p in first] == [p.tobytes() for p in again]
    assert len({p.tobytes() for p in first}) == 3
