import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassJaccardIndex

from close import assert_within
from espnetv2.tasks import confusion
from espnetv2.tasks.confusion import Confusion
from espnetv2.tasks.training import SegmentationTraining


def _small():
    """Two classes and void, counted by hand."""
    counts = Confusion(2)
    target = np.array([[0, 0, 0, 1], [1, 1, 255, 255]], dtype=np.uint8)
    prediction = np.array([[0, 0, 1, 1], [1, 2, 0, 1]], dtype=np.uint8)
    counts.update(prediction, target)
    return counts


def test_counts_are_true_by_row_and_predicted_by_column():
    assert _small().counts.tolist() == [[2, 1, 0], [0, 2, 1], [1, 1, 0]]


def test_void_ground_truth_counts_against_predictions_only_when_kept():
    counts = _small()
    # class 0: hit 2, missed 1, and 1 more predicted on void
    assert confusion.iou(counts.seen(void=True)).tolist() == [2 / 4, 2 / 5, 0]
    assert confusion.iou(counts.seen(void=False)).tolist() == [2 / 3, 2 / 4, 0]
    assert confusion.recall(counts.seen(void=False))[:2].tolist() == [2 / 3, 2 / 3]


def test_predicting_void_on_a_labelled_pixel_is_a_miss_either_way():
    for void in (True, False):
        assert confusion.recall(_small().seen(void=void))[1] == 2 / 3


def test_accuracy_is_over_labelled_pixels_when_void_is_left_out():
    assert confusion.accuracy(_small().seen(void=False)) == 4 / 6
    assert confusion.accuracy(_small().seen(void=True)) == 4 / 8


def test_seen_does_not_change_the_counts():
    counts = _small()
    counts.seen(void=False)
    assert counts.counts[2].sum() == 2


def test_a_class_that_never_appears_has_no_iou():
    counts = Confusion(3)
    counts.update(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8))
    assert np.isnan(confusion.iou(counts.counts)).tolist() == [False, True, True, True]


def test_merging_sums_rows_and_columns():
    counts = np.arange(16).reshape(4, 4)
    merged = confusion.merged(counts, [(0, 2), (1,)])
    assert merged.tolist() == [[0 + 2 + 8 + 10, 1 + 9, 3 + 11], [4 + 6, 5, 7], [12 + 14, 13, 15]]


def test_maps_of_different_size_are_refused():
    with pytest.raises(ValueError, match="not as large"):
        Confusion(2).update(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8))


def test_iou_over_many_pictures_equals_torchmetrics():
    generator = np.random.default_rng(0)
    ours, theirs = Confusion(5), MulticlassJaccardIndex(5, average=None, ignore_index=255)
    for _ in range(4):
        target = generator.integers(0, 6, (17, 23)).astype(np.uint8)
        target[target == 5] = 255
        noise = generator.integers(0, 5, target.shape)
        prediction = np.where(generator.random(target.shape) < 0.5, target % 5, noise)
        ours.update(prediction.astype(np.uint8), target)
        theirs.update(torch.from_numpy(prediction)[None], torch.from_numpy(target).long()[None])
    mine = confusion.iou(ours.seen(void=False))[:5]
    assert_within("IoU", mine, theirs.compute(), 1e-6)


def test_the_score_of_training_is_the_same_mean():
    """Void pixels are left out, and a class that neither occurs nor is predicted."""
    generator = torch.Generator().manual_seed(3)
    ours, task = Confusion(6), SegmentationTraining(6)
    metrics = task.metrics()
    for _ in range(4):
        logits = torch.randn(2, 6, 9, 7, generator=generator)
        logits[:, 5] = -100
        target = torch.randint(0, 6, (2, 9, 7), generator=generator)
        target[target == 5] = 255
        task.update(metrics, logits, target)
        ours.update(logits.argmax(1).numpy(), target.numpy())
    expected = confusion.iou(ours.seen(void=False))[:5].mean()
    assert_within("mIoU", task.scores(metrics)["miou"], 100 * expected, 1e-5)
