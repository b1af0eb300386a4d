"""Average precision of boxes: counts by hand, and pycocotools as the oracle."""

import contextlib
import io
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from close import FLOAT64, assert_within
from espnetv2.errors import UserError
from espnetv2.tasks.box_ap import (
    FoundBoxes,
    TrueBoxes,
    box_iou,
    coco_average_precision,
    voc_average_precision,
)

BOX = (10.0, 10.0, 20.0, 20.0)
FAR = (50.0, 50.0, 60.0, 60.0)


def _found(*rows):
    """(picture, label, score, box) each."""
    return FoundBoxes(
        np.array([row[0] for row in rows], dtype=np.int64),
        np.array([row[1] for row in rows], dtype=np.int64),
        np.array([row[2] for row in rows], dtype=np.float64),
        np.array([row[3] for row in rows], dtype=np.float64).reshape(-1, 4),
    )


def _truth(*rows):
    """(picture, label, difficult, box) each."""
    return TrueBoxes(
        np.array([row[0] for row in rows], dtype=np.int64),
        np.array([row[1] for row in rows], dtype=np.int64),
        np.array([row[2] for row in rows], dtype=bool),
        np.array([row[3] for row in rows], dtype=np.float64).reshape(-1, 4),
    )


def _both(found, truth, *, classes=1, **options):
    return [
        voc_average_precision(found, truth, classes=classes, eleven_points=eleven, **options)
        for eleven in (False, True)
    ]


def test_overlaps_of_known_boxes():
    boxes = np.array([[0, 0, 10, 10], [5, 5, 5, 5]])
    others = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [5, 5, 5, 5]])
    assert_within("edges", box_iou(boxes, others), [[1, 1 / 3, 0], [0, 0, 0]], 1e-15)
    assert_within("pixels", box_iou(boxes[:1], others[1:2], pixel=1), [[66 / 176]], 1e-15)


def test_two_of_three_with_a_false_alarm_between():
    truth = _truth((0, 0, False, BOX), (1, 0, False, BOX), (2, 0, False, BOX))
    found = _found((0, 0, 0.9, BOX), (0, 0, 0.8, FAR), (2, 0, 0.7, BOX))
    # precision 1, 1/2, 2/3 at recall 1/3, 1/3, 2/3
    every, eleven = _both(found, truth)
    assert_within("all points", every, [(1 + 2 / 3) / 3], FLOAT64)
    assert_within("11 points", eleven, [(4 * 1 + 3 * 2 / 3) / 11], FLOAT64)


def test_a_box_found_twice_is_one_hit_and_one_false_alarm():
    truth = _truth((0, 0, False, BOX), (1, 0, False, BOX))
    found = _found((0, 0, 0.9, BOX), (0, 0, 0.8, BOX), (1, 0, 0.7, BOX))
    every, _ = _both(found, truth)
    assert_within("all points", every, [(1 + 2 / 3) / 2], FLOAT64)


def test_the_best_score_claims_the_box_even_when_it_overlaps_less():
    truth = _truth((0, 0, False, BOX))
    shifted = (12.0, 10.0, 22.0, 20.0)
    found = _found((0, 0, 0.5, BOX), (0, 0, 0.9, shifted))
    assert [ap[0] for ap in _both(found, truth)] == [1, 1]


def test_a_box_belongs_to_the_one_that_it_overlaps_most_even_when_that_is_taken():
    """Here VOC differs from COCO, which would give it the next one."""
    near = (12.0, 10.0, 22.0, 20.0)
    truth = _truth((0, 0, False, BOX), (0, 0, False, near))
    found = _found((0, 0, 0.9, BOX), (0, 0, 0.8, (10.5, 10.0, 20.5, 20.0)))
    assert_within("voc", _both(found, truth)[0], [0.5], FLOAT64)


def test_difficult_boxes_neither_count_nor_harm():
    truth = _truth((0, 0, False, BOX), (0, 0, True, FAR))
    found = _found((0, 0, 0.9, FAR), (0, 0, 0.8, FAR), (0, 0, 0.7, BOX))
    assert [ap[0] for ap in _both(found, truth)] == [1, 1]
    missed = _both(_found((0, 0, 0.7, BOX)), truth)
    assert [ap[0] for ap in missed] == [1, 1]


def test_a_class_without_truth_is_nan_and_one_without_finds_is_zero():
    truth = _truth((0, 0, False, BOX), (0, 1, True, FAR))
    for ap in _both(_found((0, 1, 0.9, FAR), (0, 2, 0.9, FAR)), truth, classes=3):
        assert np.isnan(ap).tolist() == [False, True, True]
        assert ap[0] == 0
    empty = voc_average_precision(_found(), _truth(), classes=2)
    assert np.isnan(empty).all()


def test_the_same_place_in_another_picture_or_class_is_a_false_alarm():
    truth = _truth((0, 0, False, BOX), (1, 1, False, BOX))
    ap = voc_average_precision(_found((1, 0, 0.9, BOX)), truth, classes=2)
    assert ap.tolist() == [0, 0]


def test_half_an_overlap_is_enough():
    truth = _truth((0, 0, False, (0.0, 0.0, 10.0, 10.0)))
    half, less = (0.0, 0.0, 10.0, 5.0), (0.0, 0.0, 10.0, 4.9)
    assert voc_average_precision(_found((0, 0, 1.0, half)), truth, classes=1) == 1
    assert voc_average_precision(_found((0, 0, 1.0, less)), truth, classes=1) == 0
    assert voc_average_precision(_found((0, 0, 1.0, less)), truth, classes=1, pixel=1) == 1


def test_recall_of_exactly_a_tenth_reaches_it():
    """0.1 * 3 is more than 0.3 in floating point: the official Python loses a point there."""
    truth = _truth(*[(picture, 0, False, BOX) for picture in range(10)])
    found = _found(*[(picture, 0, 1 - picture / 10, BOX) for picture in range(3)])
    assert_within("11 points", _both(found, truth)[1], [4 / 11], FLOAT64)


def _scene(draw, *, apart):
    """Boxes with distinct scores; true boxes lie in cells of a grid if they are to be apart."""
    count = draw(st.integers(1, 12))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    pictures, labels = random.integers(0, 3, count), random.integers(0, 2, count)
    cells = np.arange(count)[:, None] * 100.0 if apart else random.uniform(0, 60, (count, 2))
    low = cells + random.uniform(0, 40, (count, 2))
    boxes = np.concatenate([low, low + random.uniform(5, 50, (count, 2))], axis=1)
    truth = TrueBoxes(pictures, labels, random.random(count) < 0.2, boxes)
    of = random.integers(0, count, 40)
    moved = boxes[of] + random.normal(0, 4, (40, 4))
    moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
    scores = random.permutation(40) / 40
    label = np.where(random.random(40) < 0.8, labels[of], 1 - labels[of])
    found = FoundBoxes(pictures[of], label, scores, moved)
    if apart:  # pycocotools forgives only one find of a box that does not count
        again = truth.difficult[of] & ~np.isin(np.arange(40), np.unique(of, return_index=True)[1])
        found = FoundBoxes(*(column[~again] for column in found))
    return found, truth


def _pycocotools(found, truth, *, difficult_as):
    """The oracle's evaluation object; difficult boxes as crowds or as boxes out of range."""
    mask = pytest.importorskip("pycocotools.mask")
    assert mask
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def rows(table):
        sides = np.concatenate([table.boxes[:, :2], table.boxes[:, 2:] - table.boxes[:, :2]], 1)
        columns = zip(table.pictures.tolist(), table.labels.tolist(), sides.tolist(), strict=True)
        return [{"image_id": p, "category_id": c, "bbox": b} for p, c, b in columns]

    annotations = []
    for row, difficult in zip(rows(truth), truth.difficult.tolist(), strict=True):
        out_of_range = difficult and difficult_as == "out of range"
        area = 1e9 if out_of_range else row["bbox"][2] * row["bbox"][3]
        crowd = int(difficult and difficult_as == "crowd")
        annotations.append({**row, "id": len(annotations) + 1, "area": area, "iscrowd": crowd})
    with contextlib.redirect_stdout(io.StringIO()):
        truths = COCO()
        truths.dataset = {
            "images": [{"id": picture} for picture in range(3)],
            "categories": [{"id": label} for label in range(2)],
            "annotations": annotations,
        }
        truths.createIndex()
        scores = found.scores.tolist()
        answers = truths.loadRes(
            [{**row, "score": s} for row, s in zip(rows(found), scores, strict=True)]
        )
        judge = COCOeval(truths, answers, "bbox")
        if difficult_as == "out of range":
            judge.params.areaRng, judge.params.areaRngLbl = [[0, 1e8]], ["all"]
    return judge


def _precision(judge):
    with contextlib.redirect_stdout(io.StringIO()):
        judge.evaluate()
        judge.accumulate()
    precision = judge.eval["precision"][..., 0, -1]  # (IoU, recalls, classes)
    return np.where(precision < 0, np.nan, precision)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_voc_measures_equal_pycocotools_at_their_recalls(data):
    """True boxes are apart, so both rules of matching agree; a recall is a whole number's share."""
    found, truth = _scene(data.draw, apart=True)
    every, eleven = _both(found, truth, classes=2)
    for label in range(2):
        total = int((~truth.difficult & (truth.labels == label)).sum())
        for name, ap, recalls in (
            ("all points", every, np.arange(1, total + 1) / max(total, 1)),
            ("11 points", eleven, np.arange(11) / 10),
        ):
            if total == 0:
                assert np.isnan(ap[label])
                continue
            judge = _pycocotools(found, truth, difficult_as="out of range")
            judge.params.iouThrs, judge.params.recThrs = np.array([0.5]), recalls
            expected = _precision(judge)[0, :, label].mean()
            assert_within(f"{name}, class {label}", ap[label], expected, 1e-9)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_coco_precision_equals_pycocotools(data):
    found, truth = _scene(data.draw, apart=False)
    ours = coco_average_precision(found, truth, classes=2)
    theirs = _precision(_pycocotools(found, truth, difficult_as="crowd")).mean(axis=1)
    for name, actual, expected in (
        ("AP", ours.ap, theirs.mean(axis=0)),
        ("AP50", ours.ap50, theirs[0]),
        ("AP75", ours.ap75, theirs[5]),
    ):
        assert np.isnan(actual).tolist() == np.isnan(expected).tolist()
        assert_within(name, np.nan_to_num(actual), np.nan_to_num(expected), 1e-9)


def test_coco_precision_does_not_depend_on_the_unit():
    truth = _truth((0, 0, False, BOX), (1, 0, False, FAR))
    found = _found((0, 0, 0.9, (10.0, 10.0, 20.0, 18.2)), (1, 0, 0.8, FAR))
    small = [table._replace(boxes=table.boxes / 100) for table in (found, truth)]
    assert_within(
        "AP",
        coco_average_precision(*small, classes=1).ap,
        coco_average_precision(found, truth, classes=1).ap,
        FLOAT64,
    )


def test_coco_precision_of_nothing():
    truth = _truth((0, 0, False, BOX))
    assert coco_average_precision(_found(), truth, classes=1).ap == 0
    assert np.isnan(coco_average_precision(_found((0, 0, 1.0, BOX)), _truth(), classes=1).ap)


def test_without_the_extra_the_answer_is_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(UserError, match=r"espnetv2\[detection\]"):
        coco_average_precision(_found(), _truth(), classes=1)
