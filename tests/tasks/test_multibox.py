"""Matching, coding and loss of the detector."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from close import assert_within
from espnetv2.models.espnetv2_ssd import RawDetections
from espnetv2.tasks.multibox import (
    decode_offsets,
    encode,
    hard_negatives,
    iou,
    match,
    multibox_loss,
    to_centres,
    to_corners,
)
from espnetv2.tasks.priors import priors
from official_ssd import official_ssd300

SHARE = st.floats(0.01, 1.0)
GRID = priors((64, 64))
NO_BOXES = (torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))


@settings(max_examples=50, deadline=None)
@given(st.tuples(SHARE, SHARE, SHARE, SHARE), st.integers(0, len(GRID) - 1))
def test_decoding_inverts_encoding(box, place):
    boxes = torch.tensor([box])
    there = encode(boxes, GRID[place : place + 1])
    assert_within("boxes", decode_offsets(there, GRID[place : place + 1]), boxes, 1e-4)


def test_iou_of_known_boxes():
    boxes = torch.tensor([[0.0, 0.0, 0.5, 0.5]])
    others = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.25, 0.0, 0.75, 0.5], [0.6, 0.6, 0.9, 0.9]])
    assert_within("iou", iou(boxes, others), [[1, 1 / 3, 0]], 1e-4)


def test_a_box_without_area_gives_finite_targets():
    labels, offsets = match(torch.tensor([[0.2, 0.2, 0.2, 0.4]]), torch.tensor([1]), GRID)
    assert (labels > 0).sum() == 1
    assert offsets.isfinite().all()


@pytest.mark.parametrize(("share", "expected"), [(0.44, 0), (0.46, 3)])
def test_a_prior_that_is_not_claimed_is_matched_from_45_percent_on(share, expected):
    whole = torch.tensor([[0.2, 0.2, 0.6, 0.6]])
    part = torch.tensor([[0.2, 0.2, 0.2 + 0.4 * share, 0.6]])
    labels, _ = match(part, torch.tensor([3]), to_centres(torch.cat([whole, part])))
    assert labels.tolist() == [expected, 3]


def test_every_box_gets_its_best_prior_however_small_the_overlap():
    labels, _ = match(torch.tensor([[0.0, 0.0, 0.01, 0.01]]), torch.tensor([2]), GRID)
    assert (labels == 2).sum() == 1


def test_the_later_box_wins_a_tie():
    boxes = torch.tensor([[0.2, 0.2, 0.6, 0.6]]).repeat(3, 1)
    labels, _ = match(boxes, torch.tensor([1, 2, 3]), GRID)
    best = iou(boxes[:1], to_corners(GRID)).argmax()
    assert labels[best] == 3


def test_no_boxes_means_all_background():
    labels, offsets = match(*NO_BOXES, GRID)
    assert not labels.any()
    assert offsets.shape == GRID.shape


def test_hard_negatives_are_the_worst_of_each_image():
    loss = torch.tensor([[5.0, 4.0, 3.0, 2.0, 1.0], [5.0, 4.0, 3.0, 2.0, 1.0]])
    positive = torch.tensor([[True, False, False, False, False], [False] * 5])
    chosen = hard_negatives(loss, positive, ratio=3)
    assert chosen.tolist() == [[False, True, True, True, False], [False] * 5]
    few = hard_negatives(torch.tensor([[5.0, 4.0]]), torch.tensor([[True, False]]), ratio=3)
    assert few.tolist() == [[False, True]]


def test_loss_of_a_case_worked_by_hand():
    prior = torch.tensor([[0.3, 0.3, 0.2, 0.2], [0.8, 0.8, 0.2, 0.2]])
    raw = RawDetections(torch.zeros(1, 2, 3), torch.tensor([[[2.0, 0.5, 0, 0], [9, 9, 9, 9]]]))
    loss = multibox_loss(raw, [(to_corners(prior[:1]), torch.tensor([2]))], prior)
    assert_within("regression", loss.regression, 1.5 + 0.125, 1e-5)
    assert_within("classification", loss.classification, 2 * math.log(3), 1e-5)
    assert_within("total", loss.total, 1.625 + 2 * math.log(3), 1e-5)


def test_a_batch_without_boxes_has_a_finite_loss_and_gradient():
    scores = torch.randn(2, len(GRID), 3, requires_grad=True)
    offsets = torch.randn(2, len(GRID), 4, requires_grad=True)
    loss = multibox_loss(RawDetections(scores, offsets), [NO_BOXES, NO_BOXES], GRID)
    loss.total.backward()
    assert loss.total == 0
    assert scores.grad.isfinite().all()
    assert offsets.grad.isfinite().all()


def test_an_image_without_boxes_adds_nothing_to_another():
    torch.manual_seed(3)
    raw = RawDetections(torch.randn(2, len(GRID), 3), torch.randn(2, len(GRID), 4))
    target = (torch.tensor([[0.1, 0.1, 0.5, 0.5]]), torch.tensor([1]))
    both = multibox_loss(raw, [target, NO_BOXES], GRID)
    alone = multibox_loss(RawDetections(*(r[:1] for r in raw)), [target], GRID)
    assert_within("total", both.total, alone.total, 1e-5)


@pytest.mark.data
def test_matching_equals_the_official_targets(shared):
    stored = np.load(shared / "parity" / "espnetv2_ssd300_voc_s_2.0_crcfill.npz")
    labels, offsets = match(
        torch.from_numpy(stored["gt_boxes"]),
        torch.from_numpy(stored["gt_labels"]),
        priors((300, 300)),
    )
    found = labels.nonzero().squeeze(1)
    assert found.tolist() == stored["match_pos_index"].tolist()
    assert labels[found].tolist() == stored["match_pos_label"].tolist()
    assert_within("offsets", offsets[found], stored["match_pos_loc"], 1e-5)


@pytest.mark.data
def test_losses_equal_the_official_ones(shared):
    stored, raw = official_ssd300(shared)
    target = (torch.from_numpy(stored["gt_boxes"]), torch.from_numpy(stored["gt_labels"]))
    loss = multibox_loss(raw, [target], priors((300, 300)))
    assert_within("regression", loss.regression, stored["loss_reg"], 1e-5)
    assert_within("classification", loss.classification, stored["loss_cls"], 1e-5)


def test_centres_and_corners_are_inverse():
    assert_within("boxes", to_centres(to_corners(GRID)), GRID, 1e-6)
