"""Training a detector: targets of every form, loss, and the score of what is decoded."""

import pytest
import torch
from torch import nn

from close import assert_within
from espnetv2.data.boxes import Boxes
from espnetv2.models.espnetv2_ssd import RawDetections, espnetv2_ssd
from espnetv2.tasks.detection_training import Answer, DetectionTraining
from espnetv2.tasks.multibox import encode, match, multibox_loss
from espnetv2.tasks.priors import priors
from official_ssd import official_ssd300, picture

CLASSES = ("red", "blue")
CAT, DOG = [0.1, 0.1, 0.6, 0.6], [0.5, 0.4, 0.9, 0.9]


def _boxes(corners, labels, *, difficult=None, crowd=None, size=(40, 80)):
    nobody = torch.zeros(len(labels), dtype=torch.bool)
    return Boxes(
        boxes=torch.tensor(corners),
        labels=torch.tensor(labels),
        difficult=nobody if difficult is None else torch.tensor(difficult),
        crowd=nobody if crowd is None else torch.tensor(crowd),
        areas=torch.zeros(len(labels)),
        size=size,
        name="a",
    )


class Seer(nn.Module):
    """Answers every picture with the boxes that it was told."""

    def __init__(self, corners, labels, *, size):
        super().__init__()
        grid = priors(size)
        found, offsets = match(torch.tensor(corners), torch.tensor(labels), grid)
        self.offsets = offsets
        self.scores = 30.0 * nn.functional.one_hot(found, len(CLASSES) + 1).float()

    def forward(self, images):
        many = len(images)
        return RawDetections(self.scores.expand(many, -1, -1), self.offsets.expand(many, -1, -1))


def _validated(task, network, targets, *, size=(64, 96)):
    metrics = task.metrics()
    for target in targets:
        _, outputs = task.loss(network, torch.zeros(1, 3, *size), [target])
        task.update(metrics, outputs, [target])
    return task.scores(metrics)


FORMS = {
    "pair": lambda boxes: (boxes.boxes, boxes.labels),
    "triple": lambda boxes: (boxes.boxes, boxes.labels, boxes.difficult),
    "boxes": lambda boxes: boxes,
}


@pytest.mark.parametrize("form", FORMS)
def test_a_detector_that_sees_everything_scores_a_hundred(form):
    network = Seer([CAT, DOG], [1, 2], size=(64, 96))
    scores = _validated(
        DetectionTraining(CLASSES), network, [FORMS[form](_boxes([CAT, DOG], [1, 2]))] * 2
    )
    assert (scores["ap50"], scores["ap11"]) == (100, 100)
    assert_within("COCO", scores["ap_coco"], 100, 1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_a_box_that_overlaps_too_little_is_not_found(form):
    network = Seer([[0.1, 0.1, 0.6, 0.34]], [1], size=(64, 96))
    truth = FORMS[form](_boxes([CAT], [1], size=(400, 800)))
    assert _validated(DetectionTraining(CLASSES), network, [truth])["ap50"] == 0


def test_labels_count_from_one_and_a_swap_is_found_out():
    network = Seer([CAT, DOG], [2, 1], size=(64, 96))
    scores = _validated(DetectionTraining(CLASSES), network, [_boxes([CAT, DOG], [1, 2])])
    assert scores["ap50"] == 0


@pytest.mark.parametrize("flag", ["difficult", "crowd"])
def test_difficult_and_crowd_boxes_neither_train_nor_count(flag):
    task = DetectionTraining(CLASSES)
    marked = _boxes([CAT, DOG], [1, 2], **{flag: [False, True]})
    alone = _boxes([CAT], [1])
    network = Seer([CAT], [1], size=(64, 96))
    assert _validated(task, network, [marked])["ap50"] == 100
    images = torch.zeros(1, 3, 64, 96)
    assert_within("loss", task.loss(network, images, [marked])[0], 0, 1e-5)
    assert task.loss(network, images, [_boxes([CAT, DOG], [1, 2])])[0] > 1
    assert task.loss(network, images, [marked])[0] == task.loss(network, images, [alone])[0]


def test_the_score_does_not_depend_on_the_form_of_the_target():
    torch.manual_seed(1)
    near = [0.13, 0.12, 0.55, 0.62]
    network = Seer([near, DOG], [1, 2], size=(64, 96))
    truth = _boxes([CAT, DOG], [1, 2], size=(640, 960))
    found = [
        _validated(DetectionTraining(CLASSES), network, [form(truth)])["ap_coco"]
        for form in FORMS.values()
    ]
    assert 50 < found[0] < 100
    assert_within("forms", found, [found[0]] * 3, 1e-6)


def test_the_loss_is_the_multibox_loss_at_any_size():
    network = espnetv2_ssd("s0_5", num_classes=3).eval()
    images = torch.randn(2, 3, 64, 96)
    targets = [(torch.tensor([CAT]), torch.tensor([1])), (torch.zeros(0, 4), torch.zeros(0).long())]
    with torch.no_grad():
        loss, answer = DetectionTraining(CLASSES).loss(network, images, targets)
        expected = multibox_loss(network(images), targets, priors((64, 96))).total
    assert isinstance(answer, Answer)
    assert answer.size == (64, 96)
    assert_within("loss", loss, expected, 1e-5)


@pytest.mark.slow
def test_it_learns_eight_pictures():
    torch.manual_seed(0)
    task = DetectionTraining(CLASSES, coco=False)
    images, targets = torch.zeros(8, 3, 64, 64), []
    for number, image in enumerate(images):
        left, top = 0.1 + 0.05 * (number % 4), 0.1 + 0.05 * (number // 2)
        box = [left, top, left + 0.5, top + 0.5]
        x1, y1, x2, y2 = (int(64 * side) for side in box)
        image[2 * (number % 2), y1:y2, x1:x2] = 2.0
        targets.append((torch.tensor([box]), torch.tensor([1 + number % 2])))
    network = espnetv2_ssd("s0_5", num_classes=3)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(40):
        loss, _ = task.loss(network, images, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    metrics = task.metrics()
    with torch.no_grad():
        loss, outputs = task.loss(network, images, targets)
    task.update(metrics, outputs, targets)
    assert loss < 1.0
    assert task.scores(metrics)["ap50"] > 95


def test_gradients_do_not_stay_in_the_metric():
    task = DetectionTraining(CLASSES)
    raw = RawDetections(
        torch.randn(1, len(priors((64, 64))), 3, requires_grad=True),
        encode(priors((64, 64)), priors((64, 64)))[None],
    )
    metrics = task.metrics()
    target = (torch.tensor([CAT]), torch.tensor([1]))
    task.update(metrics, Answer(raw, priors((64, 64)), (64, 64)), [target])
    assert not any(rows.requires_grad for rows in metrics.found)


@pytest.mark.data
def test_the_loss_through_the_task_equals_the_official_one(shared):
    stored, raw = official_ssd300(shared)
    target = (torch.from_numpy(stored["gt_boxes"]), torch.from_numpy(stored["gt_labels"]))
    task = DetectionTraining([str(index) for index in range(20)])
    loss, _ = task.loss(lambda _: raw, picture(stored), [target])
    assert_within("loss", loss, stored["loss_reg"] + stored["loss_cls"], 2e-5)
