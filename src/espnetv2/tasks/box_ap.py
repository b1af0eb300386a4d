"""Average precision of boxes: the two of VOC in numpy, COCO's through faster-coco-eval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from espnetv2.extras import require

IOU_THRESHOLD = 0.5
VOC_PIXEL = 1.0
"""VOC's corners name the first and the last pixel of a box, so it is one pixel wider than their
difference."""


class FoundBoxes(NamedTuple):
    """What a detector found in many pictures, a row for each box.

    Attributes:
        pictures: Number of the picture, int64 (n,).
        labels: Class index, from 0, int64 (n,).
        scores: (n,).
        boxes: x1 y1 x2 y2, (n, 4); the unit does not matter.
    """

    pictures: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray


class TrueBoxes(NamedTuple):
    """What is in the pictures, a row for each box.

    Attributes:
        pictures: Number of the picture, int64 (m,).
        labels: Class index, from 0, int64 (m,).
        difficult: Boxes that need not be found, and do no harm when found, bool (m,); in COCO's
            measure they are crowds.
        boxes: x1 y1 x2 y2, (m, 4), in the unit of the found ones.
    """

    pictures: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray
    boxes: np.ndarray


def voc_average_precision(
    found: FoundBoxes,
    truth: TrueBoxes,
    *,
    classes: int,
    eleven_points: bool = False,
    threshold: float = IOU_THRESHOLD,
    pixel: float = 0.0,
) -> np.ndarray:
    """Average precision per class, as VOC defines it; nan for a class without a true box.

    A found box belongs to the true box of its class that it overlaps most. The best-scored one
    of those that overlap it by `threshold` is right, further ones are false alarms, and those
    that belong to a difficult box do not count. Precision is made to fall with recall, and is
    averaged over all recalls (since 2010) or over the eleven recalls 0, 0.1, ... 1 (until 2009).

    Shape: -> float64 (classes,), 0 to 1

    Args:
        found: Of all pictures, in any order.
        truth: Of all pictures.
        classes: How many there are.
        eleven_points: The measure of VOC 2007.
        threshold: Intersection over union from which a box is found.
        pixel: What is added to widths and heights: `VOC_PIXEL` for VOC's files in pixels, 0
            where corners are edges.
    """
    return np.array(
        [
            _class_precision(
                FoundBoxes(*(column[found.labels == label] for column in found)),
                TrueBoxes(*(column[truth.labels == label] for column in truth)),
                eleven_points=eleven_points,
                threshold=threshold,
                pixel=pixel,
            )
            for label in range(classes)
        ]
    )


def box_iou(boxes: np.ndarray, others: np.ndarray, *, pixel: float = 0.0) -> np.ndarray:
    """Intersection over union of every pair; 0 where neither has an area.

    Shape: (n, 4), (m, 4) corners -> float64 (n, m)
    """
    boxes, others = boxes.astype(np.float64), others.astype(np.float64)
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = (high - low + pixel).clip(min=0).prod(axis=2)
    areas, other_areas = ((b[:, 2:] - b[:, :2] + pixel).prod(axis=1) for b in (boxes, others))
    whole = areas[:, None] + other_areas[None] - shared
    return np.asarray(np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0))


def _class_precision(
    found: FoundBoxes, truth: TrueBoxes, *, eleven_points: bool, threshold: float, pixel: float
) -> float:
    total = int((~truth.difficult).sum())
    if total == 0:
        return float("nan")
    right = _verdicts(found, truth, threshold=threshold, pixel=pixel)
    if len(right) == 0:
        return 0.0
    hits = right.cumsum()
    precision = hits / np.arange(1, len(hits) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]  # the best at this recall or above
    if not eleven_points:
        return float(precision[right].sum() / total)  # every hit raises recall by 1 / total
    # recall reaches k / 10, compared in whole numbers: D90
    first = np.searchsorted(10 * hits, np.arange(11) * total)
    return float(np.append(precision, 0.0)[first].mean())


def _verdicts(found: FoundBoxes, truth: TrueBoxes, *, threshold: float, pixel: float) -> np.ndarray:
    """Whether each box of one class is right, best first; those that do not count are left out."""
    order = np.argsort(-found.scores, kind="stable")
    pictures, boxes = found.pictures[order], found.boxes[order]
    owner = np.full(len(order), -1)  # row of the true box that a found one belongs to
    true_rows = _by_picture(truth.pictures)
    for picture, rows in _by_picture(pictures).items():
        candidates = true_rows.get(picture)
        if candidates is None:
            continue
        overlaps = box_iou(boxes[rows], truth.boxes[candidates], pixel=pixel)
        best = overlaps.argmax(axis=1)
        near = overlaps[np.arange(len(rows)), best] >= threshold
        owner[rows[near]] = candidates[best[near]]
    right = np.zeros(len(order), dtype=bool)
    claimed, first = np.unique(owner, return_index=True)
    right[first[claimed >= 0]] = True
    counts = (owner < 0) | ~truth.difficult[owner] if len(truth.difficult) else owner < 0
    return np.asarray(right[counts])


def _by_picture(pictures: np.ndarray) -> dict[int, np.ndarray]:
    """The rows of each picture, in their order."""
    order = np.argsort(pictures, kind="stable")
    numbers, starts = np.unique(pictures[order], return_index=True)
    return dict(zip(numbers.tolist(), np.split(order, starts[1:]), strict=bool(len(numbers))))


@dataclass(frozen=True, eq=False)
class CocoPrecision:
    """COCO's average precision, 0 to 1, nan for a class without a true box.

    Attributes:
        ap: Per class, over IoU 0.50, 0.55, ... 0.95, float64 (classes,).
        ap50: Per class at IoU 0.50.
        ap75: Per class at IoU 0.75.
    """

    ap: np.ndarray
    ap50: np.ndarray
    ap75: np.ndarray


def coco_average_precision(found: FoundBoxes, truth: TrueBoxes, *, classes: int) -> CocoPrecision:
    """COCO's measure: 101 recalls, ten overlaps, the best 100 boxes of a picture.

    Raises:
        UserError: The extra `detection` is not installed.
    """
    coco_eval = require("faster_coco_eval", extra="detection")
    if len(truth.boxes) == 0:
        nothing = np.full(classes, np.nan)
        return CocoPrecision(nothing, nothing, nothing)
    truths = coco_eval.COCO(_coco_truth(found, truth, classes=classes))
    rows = _coco_rows(found.pictures, found.labels, found.boxes)
    answers = truths.loadRes(
        [
            {**row, "score": score}
            for row, score in zip(rows, found.scores.astype(np.float64).tolist(), strict=True)
        ]
    )
    judge = coco_eval.COCOeval_faster(truths, answers, iouType="bbox")
    judge.evaluate()
    judge.accumulate()
    # all sizes, 100 boxes; -1 says that there is no truth
    precision = np.asarray(judge.eval["precision"], dtype=np.float64)[..., 0, -1]  # (IoU, R, C)
    by_overlap = np.where(precision < 0, np.nan, precision).mean(axis=1)  # (IoU, C)
    return CocoPrecision(by_overlap.mean(axis=0), by_overlap[0], by_overlap[5])


def _coco_truth(found: FoundBoxes, truth: TrueBoxes, *, classes: int) -> dict[str, Any]:
    pictures = np.union1d(found.pictures, truth.pictures).tolist()
    rows = _coco_rows(truth.pictures, truth.labels, truth.boxes)
    return {
        "images": [{"id": picture} for picture in pictures],
        "categories": [{"id": label, "name": str(label)} for label in range(classes)],
        "annotations": [
            {**row, "id": number, "area": row["bbox"][2] * row["bbox"][3], "iscrowd": int(crowd)}
            for number, (row, crowd) in enumerate(
                zip(rows, truth.difficult.tolist(), strict=True), start=1
            )
        ],
    }


def _coco_rows(pictures: np.ndarray, labels: np.ndarray, boxes: np.ndarray) -> list[dict[str, Any]]:
    corners = boxes.astype(np.float64)
    sides = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    return [
        {"image_id": picture, "category_id": label, "bbox": side}
        for picture, label, side in zip(
            pictures.tolist(), labels.tolist(), sides.tolist(), strict=True
        )
    ]
