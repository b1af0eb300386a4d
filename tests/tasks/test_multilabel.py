"""Multi-label classification: decoding, F1 by hand, average precision, training."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torchmetrics.functional.classification import (
    binary_average_precision,
    multilabel_f1_score,
)

from close import assert_within
from espnetv2.errors import UserError
from espnetv2.tasks.multilabel import MultiLabelMetric, MultiLabelTraining, decode, judge

CLASSES = ("cat", "dog", "owl")


def test_every_class_above_the_threshold_is_named_best_first():
    few, none = decode(torch.tensor([[1.0, -1.0, 3.0], [-1.0, -2.0, -3.0]]), CLASSES)
    assert few.labels == ("owl", "cat")
    assert_within("scores", few.scores, [1 / (1 + math.exp(-x)) for x in (3, 1)], 1e-6)
    assert (none.labels, none.to_json()["top"]) == ((), [])
    none.draw(Image.new("RGB", (64, 64)))
    (most,) = decode(torch.tensor([[1.0, -1.0, 3.0]]), CLASSES, threshold=0.1)
    assert most.labels == ("owl", "cat", "dog")


def test_as_many_names_as_logits():
    with pytest.raises(UserError, match="2 classes but 3 names"):
        decode(torch.zeros(1, 2), CLASSES)


def test_f1_of_a_case_by_hand():
    logits = torch.tensor([[1.0, -1, -1], [1, 1, -1], [-1, 1, -1], [1, -1, -1]])
    targets = torch.tensor([[1.0, 0, 0], [1, 0, 1], [1, 1, 0], [0, 0, 0]])
    found = judge(logits, targets)
    # hits 2 1 0, named 3 2 0, shown 3 1 1
    assert_within("f1", found.f1, [2 / 3, 2 / 3, 0], 1e-12)
    assert_within("class-wise", found.class_f1, 4 / 9, 1e-12)
    assert_within("overall", found.overall_f1, 6 / 10, 1e-12)
    assert found.positives.tolist() == [3, 1, 1]


def test_a_probability_of_exactly_a_half_names_nothing():
    assert judge(torch.zeros(2, 3), torch.ones(2, 3)).overall_f1 == 0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 30), st.integers(2, 5))
def test_scores_equal_torchmetrics(seed, pictures, classes):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(pictures, classes, generator=generator)
    targets = (torch.rand(pictures, classes, generator=generator) < 0.4).float()
    found = judge(logits, targets)
    for name, value, average in (
        ("class-wise", found.class_f1, "macro"),
        ("overall", found.overall_f1, "micro"),
    ):
        # as probabilities: torchmetrics takes logits that all lie in 0..1 for such
        expected = multilabel_f1_score(
            logits.sigmoid(), targets.long(), num_labels=classes, average=average
        )
        if average == "micro" or (targets.any(0) | (logits > 0).any(0)).all():
            # torchmetrics leaves out classes that are neither named nor shown
            assert_within(name, value, expected, 1e-6)
    for label in range(classes):
        if not targets[:, label].any():
            assert found.average_precision[label].isnan()
            continue
        expected = binary_average_precision(logits[:, label].sigmoid(), targets[:, label].long())
        assert_within("AP", found.average_precision[label], expected, 1e-6)


def test_large_logits_do_not_tie():
    logits = torch.tensor([[20.0], [25.0], [30.0]])
    found = judge(logits, torch.tensor([[0.0], [0.0], [1.0]]))
    assert found.average_precision.tolist() == [1.0]


def test_the_metric_does_not_depend_on_batches():
    logits, targets = torch.randn(10, 3), (torch.rand(10, 3) < 0.5).float()
    metric = MultiLabelMetric(3)
    for part in range(0, 10, 4):
        metric.update(logits[part : part + 4], targets[part : part + 4])
    found, values = judge(logits, targets), metric.compute()
    assert_within("overall", values["f1_overall"], found.overall_f1, 1e-6)
    assert_within("class-wise", values["f1_class"], found.class_f1, 1e-6)
    assert_within("map", values["map"], found.mean_average_precision, 1e-6)
    metric.reset()
    metric.update(logits[:1], torch.zeros(1, 3))
    empty = metric.compute()
    assert empty["f1_overall"] == 0
    assert empty["map"].isnan()


def test_the_training_loss_is_the_sum_over_classes_and_the_validation_loss_the_mean():
    network, task = nn.Linear(4, 3), MultiLabelTraining(3)
    images, targets = torch.randn(5, 4), (torch.rand(5, 3) < 0.5).float()
    training, logits = task.loss(network, images, targets)
    validation, _ = task.loss(network.eval(), images, targets)
    share = logits.sigmoid()
    entropy = -(targets * share.log() + (1 - targets) * (1 - share).log())
    assert_within("validation", validation, entropy.mean(), 1e-6)
    assert_within("training", training, entropy.sum(1).mean(), 1e-6)


def test_it_learns_eight_pictures():
    torch.manual_seed(0)
    task, network = MultiLabelTraining(3), nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    images = torch.randn(8, 3, 2, 2)
    targets = torch.tensor([[(n >> bit) & 1 for bit in range(3)] for n in range(8)]).float()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
    for _ in range(100):
        loss, _ = task.loss(network, images, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    metrics = task.metrics()
    task.update(metrics, task.loss(network, images, targets)[1], targets)
    scores = task.scores(metrics)
    assert scores == {"f1_overall": 100, "f1_class": 100, "map": 100}
