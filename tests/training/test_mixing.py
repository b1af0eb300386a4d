"""Mixed pictures: targets become shares, and the loss stays on the same scale."""

import pytest
import torch
from torch import nn

from espnetv2.tasks.training import ClassificationTraining
from espnetv2.training import mixing
from espnetv2.training.mixing import mix, per_weight
from espnetv2.training.module import TrainingModule
from espnetv2.training.recipe import Loss, parse


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, [0.2, 7.0, 3.0]])
def test_targets_of_a_single_class_give_the_loss_of_plain_ones(weights, smoothing):
    task = ClassificationTraining(3, label_smoothing=smoothing, class_weights=weights)
    logits, targets = torch.randn(5, 3), torch.tensor([0, 1, 1, 2, 0])
    network = nn.Identity()
    plain, _ = task.loss(network, logits, targets)
    shares = nn.functional.one_hot(targets, 3).float()
    soft, _ = task.loss(network, logits, shares)
    torch.testing.assert_close(per_weight(soft, shares, task), plain)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_a_share_of_one_leaves_pictures_and_loss(kind, monkeypatch):
    monkeypatch.setattr(torch.distributions.Beta, "sample", lambda self: torch.tensor(1.0))
    monkeypatch.setattr(mixing, "_rectangle", lambda height, width, area: (0, 0, 0, 0))
    images, targets = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 1, 0])
    mixed, shares = mix(images, targets, loss=Loss(**{kind: 0.2}), classes=2)
    assert torch.equal(mixed, images)
    assert torch.equal(shares, nn.functional.one_hot(targets, 2).float())


def test_a_step_with_class_weights_is_on_the_scale_of_one_without_mixing(monkeypatch):
    monkeypatch.setattr(torch.distributions.Beta, "sample", lambda self: torch.tensor(1.0))
    images, targets = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 1, 0])
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    losses = []
    for mixup in (0.0, 0.2):
        values = {"task": "classification", "model": "espnetv2_s0_5", "loss": {"mixup": mixup}}
        task = ClassificationTraining(2, class_weights=[4.0, 9.0])
        module = TrainingModule(network, task, parse(values, source="test"), steps=1)
        losses.append(module.training_step((images, targets), 0))
    torch.testing.assert_close(*losses)
