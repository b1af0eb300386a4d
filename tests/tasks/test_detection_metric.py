"""The metric that collects boxes over batches."""

import numpy as np
import pytest
import torch

from close import assert_within
from espnetv2.tasks.box_ap import FoundBoxes, TrueBoxes, voc_average_precision
from espnetv2.tasks.detection_metric import DetectionAveragePrecision
from espnetv2.tasks.results import Detections

CLASSES = ("cat", "dog")


def _scenes(count, *, seed=0):
    random = np.random.default_rng(seed)
    scenes = []
    for _ in range(count):
        size = random.integers(0, 5)
        low = random.uniform(0, 200, (size, 2))
        boxes = np.concatenate([low, low + random.uniform(20, 80, (size, 2))], 1)
        labels = random.integers(0, 2, size)
        difficult = random.random(size) < 0.2
        again = random.permutation(np.repeat(np.arange(size), 2))
        moved = boxes[again] + random.normal(0, 5, (len(again), 4))
        found = Detections(
            moved.astype(np.float32),
            labels[again],
            random.random(len(again)).astype(np.float32),
            CLASSES,
        )
        truth = tuple(
            torch.from_numpy(part) for part in (boxes.astype(np.float32), labels, difficult)
        )
        scenes.append((found, truth))
    return scenes


def _counted(scenes, *, batch, **options):
    metric = DetectionAveragePrecision(2, **options)
    for first in range(0, len(scenes), batch):
        found, truth = zip(*scenes[first : first + batch], strict=True)
        metric.update(found, truth)
    return metric


def test_it_equals_the_function_on_all_pictures():
    scenes = _scenes(20)
    numbers = [np.full(len(f), n) for n, (f, _) in enumerate(scenes)]
    true_numbers = [np.full(len(t[0]), n) for n, (_, t) in enumerate(scenes)]
    found = FoundBoxes(
        np.concatenate(numbers),
        *(np.concatenate([getattr(f, part) for f, _ in scenes]) for part in ("labels", "scores")),
        np.concatenate([f.boxes for f, _ in scenes]),
    )
    truth = TrueBoxes(
        np.concatenate(true_numbers),
        *(np.concatenate([t[part].numpy() for _, t in scenes]) for part in (1, 2, 0)),
    )
    expected = voc_average_precision(found, truth, classes=2, pixel=1)
    assert 0.05 < expected.mean() < 0.95
    values = _counted(scenes, batch=3).compute()
    assert_within("ap50", values["ap50"], expected.mean(), 1e-6)
    eleven = voc_average_precision(found, truth, classes=2, pixel=1, eleven_points=True)
    assert_within("ap11", values["ap11"], eleven.mean(), 1e-6)


def test_batches_do_not_matter_and_reset_forgets():
    scenes = _scenes(12)
    metric = _counted(scenes, batch=1)
    together = _counted(scenes, batch=12).compute()
    for name, value in metric.compute().items():
        assert_within(name, value, together[name], 1e-7)
    metric.reset()
    metric.update(*zip(*scenes[:3], strict=True))
    fresh = _counted(scenes[:3], batch=3).compute()
    assert {k: float(v) for k, v in metric.compute().items()} == {
        k: float(v) for k, v in fresh.items()
    }


def test_a_split_without_a_true_box_has_no_score():
    found = Detections(np.ones((1, 4), np.float32), np.array([0]), np.ones(1, np.float32), CLASSES)
    truth = (torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0).bool())
    assert all(v.isnan() for v in _counted([(found, truth)], batch=1).compute().values())


@pytest.mark.parametrize("batch", [1, 2])
def test_pictures_are_kept_apart(batch):
    here, there = np.float32([[0, 0, 10, 10]]), np.float32([[50, 50, 70, 70]])
    nothing = Detections(here[:0], np.array([], np.int64), np.float32([]), CLASSES)
    seen = Detections(here, np.array([0]), np.float32([1]), CLASSES)
    truths = [
        (torch.from_numpy(box), torch.tensor([0]), torch.tensor([False])) for box in (here, there)
    ]
    scenes = list(zip([nothing, seen], truths, strict=True))
    assert _counted(scenes, batch=batch).compute()["ap50"] == 0


def test_a_class_without_boxes_is_left_out_of_the_mean():
    box = np.array([[0, 0, 10, 10]], np.float32)
    found = Detections(box, np.array([1]), np.array([0.9], np.float32), CLASSES)
    truth = (torch.from_numpy(box), torch.tensor([1]), torch.tensor([False]))
    assert _counted([(found, truth)], batch=1).compute()["ap50"] == 1


def test_coco_is_computed_when_wanted():
    scenes = _scenes(3)
    without = set(_counted(scenes, batch=3, coco=False).compute())
    assert without == {"ap50", "ap11"}
    values = _counted(scenes, batch=3, coco=True).compute()
    assert set(values) - without == {"ap_coco", "ap50_coco", "ap75_coco"}
    assert values["ap_coco"] < values["ap50_coco"]


def test_as_many_answers_as_pictures():
    ((found, truth),) = _scenes(1)
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        DetectionAveragePrecision(2).update([found, found], [truth])
