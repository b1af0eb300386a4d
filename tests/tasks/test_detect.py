"""Detection from raw outputs: thresholds, suppression, pixels, counts that do not fit."""

import numpy as np
import pytest
import torch
from torchvision.ops import nms

from close import assert_within
from espnetv2.errors import UserError
from espnetv2.models.espnetv2_ssd import RawDetections
from espnetv2.tasks.detect import decode, suppress
from espnetv2.tasks.multibox import encode, to_centres, to_corners
from espnetv2.tasks.priors import priors
from official_ssd import official_ssd300

CLASSES = ("cat", "dog")


def _raw(places, corners, logits):
    """Outputs over the priors of 64 x 64 that say background except at `places`."""
    grid = priors((64, 64))
    scores = torch.tensor([10.0, 0.0, 0.0]).repeat(1, len(grid), 1)
    offsets = torch.zeros(1, len(grid), 4)
    for place, box, logit in zip(places, corners, logits, strict=True):
        scores[0, place] = torch.tensor(logit)
        offsets[0, place] = encode(to_centres(torch.tensor(box)), grid[place])
    return RawDetections(scores, offsets), grid


def test_boxes_come_out_in_pixels_of_the_picture_best_first():
    boxes = [[0.1, 0.2, 0.5, 0.6], [0.5, 0.25, 0.75, 1.0]]
    raw, grid = _raw([40, 90], boxes, [[0.0, 0.0, 3.0], [0.0, 9.0, 0.0]])
    (found,) = decode(raw, grid, [(200, 400)], CLASSES)
    assert found.classes == CLASSES
    assert found.labels[:2].tolist() == [0, 1]
    assert found.scores[0] > found.scores[1] > 0.8
    assert_within("boxes", found.boxes[:2], [[200, 50, 300, 200], [40, 40, 200, 120]], 1e-3)


def test_an_overlapping_box_of_the_same_class_goes_and_of_another_class_stays():
    box, near = [0.1, 0.1, 0.5, 0.5], [0.12, 0.1, 0.5, 0.5]
    same = [[0.0, 9.0, 0.0], [0.0, 8.0, 0.0]]
    other = [[0.0, 9.0, 0.0], [0.0, 0.0, 8.0]]
    counts = []
    for logits in (same, other):
        raw, grid = _raw([40, 41], [box, near], logits)
        (found,) = decode(raw, grid, [(64, 64)], CLASSES, score_threshold=0.5)
        counts.append(len(found.scores))
    assert counts == [1, 2]


def test_boxes_are_clipped_at_the_border_unless_told_otherwise():
    raw, grid = _raw([40], [[-0.5, 0.5, 0.5, 1.25]], [[0.0, 9.0, 0.0]])
    (clipped,) = decode(raw, grid, [(100, 100)], CLASSES, score_threshold=0.5)
    (whole,) = decode(raw, grid, [(100, 100)], CLASSES, score_threshold=0.5, clip=False)
    assert_within("clipped", clipped.boxes, [[0, 50, 50, 100]], 1e-3)
    assert_within("whole", whole.boxes, [[-50, 50, 50, 125]], 1e-3)


def test_nothing_found_gives_empty_arrays():
    raw, grid = _raw([], [], [])
    (found,) = decode(raw, grid, [(64, 64)], CLASSES)
    assert found.boxes.shape == (0, 4)
    assert found.labels.shape == found.scores.shape == (0,)
    assert (found.boxes.dtype, found.labels.dtype) == (np.float32, np.int64)


def test_the_caps_keep_the_best():
    torch.manual_seed(1)
    grid = priors((64, 64))
    raw = RawDetections(torch.randn(1, len(grid), 3), torch.zeros(1, len(grid), 4))
    size = [(64, 64)]
    (every,) = decode(raw, grid, size, CLASSES, max_detections=None)
    (three,) = decode(raw, grid, size, CLASSES, max_detections=3)
    (two_each,) = decode(raw, grid, size, CLASSES, per_class=2)
    assert len(every.scores) > 10
    assert three.scores.tolist() == every.scores[:3].tolist()
    assert sorted(two_each.labels.tolist()) == [0, 0, 1, 1]


def test_suppression_in_growing_portions_equals_suppression_of_all():
    torch.manual_seed(2)
    heap = torch.tensor([0.0, 0.0, 0.2, 0.2]) + 0.01 * torch.rand(100, 4)  # the 100 best scores
    corner = torch.arange(0.3, 0.9, 0.1)[:, None].repeat(1, 2)
    boxes = torch.cat([heap, torch.cat([corner, corner + 0.08], dim=1)])
    share = torch.linspace(0.9, 0.2, len(boxes))
    shares = torch.stack([1 - share, share], dim=1)
    kept, _, scores = suppress(boxes, shares, score_threshold=0.1, iou_threshold=0.5, per_class=5)
    expected = nms(boxes, share, 0.5)[:5]
    assert len(expected) == 5
    assert torch.equal(boxes[expected], kept)
    assert torch.equal(share[expected], scores)


@pytest.mark.parametrize(
    ("shape", "sizes", "message"),
    [
        ((1, 522, 4), 1, "4 classes with background, but 2 names were given; give 3"),
        ((1, 100, 3), 1, "100 outputs but there are 522 priors"),
        ((2, 522, 3), 1, "2 pictures but 1 sizes"),
    ],
)
def test_counts_that_do_not_fit_are_named(shape, sizes, message):
    raw = RawDetections(torch.zeros(shape), torch.zeros(*shape[:2], 4))
    with pytest.raises(UserError, match=message):
        decode(raw, priors((64, 64)), [(64, 64)] * sizes, CLASSES)


@pytest.mark.data
def test_suppression_equals_the_official_rows(shared):
    stored, raw = official_ssd300(shared)
    grid = priors((300, 300))
    picked = int(stored["nms_class"])
    (found,) = decode(
        raw,
        grid,
        [(1, 1)],
        tuple(f"class {i}" for i in range(20)),
        max_detections=None,
        clip=False,
    )
    mine = found.labels == picked - 1
    assert mine.sum() == int(stored["nms_kept_total"])
    rows = np.concatenate([found.boxes[mine], found.scores[mine, None]], axis=1)
    assert_within("rows", rows[:50], stored["nms_kept"], 1e-5)
    above = (raw.scores[0].softmax(-1)[:, picked] > 0.01).sum()
    assert above == int(stored["nms_num_candidates"])


def test_corner_and_centre_forms_are_inverse():
    boxes = torch.tensor([[0.1, 0.2, 0.5, 0.9]])
    assert_within("boxes", to_corners(to_centres(boxes)), boxes, 1e-6)
