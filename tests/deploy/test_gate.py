"""The gate's score is the protocol's, by the name that people know it by."""

import pytest
import torch

import tiny_sets
from espnetv2 import create_model
from espnetv2.data.preprocess import CONVENTIONS
from espnetv2.deploy.gate import Gate, Judge
from espnetv2.errors import UserError


@pytest.mark.parametrize(
    ("dataset", "task", "short", "long"),
    [
        ("camvid", "segmentation", "miou", "mean_iou"),
        ("imagefolder", "classification", "accuracy", "top1"),
    ],
)
def test_a_score_by_its_short_and_its_full_name(dataset, task, short, long, tmp_path):
    getattr(tiny_sets, dataset)(tmp_path)
    torch.manual_seed(1)
    name, classes = {
        "segmentation": ("espnetv2_seg_s0_5", tuple(map(str, range(11)))),
        "classification": ("espnetv2_s0_5", ("cat", "dog")),
    }[task]
    network = create_model(name, num_classes=len(classes)).eval()
    spec = CONVENTIONS["imagenet"].resized((32, 32))
    judge = Judge(dataset, tmp_path)
    given = {"task": task, "preprocessing": spec, "classes": classes}
    found = judge.scores(network, **given)
    assert found[long] > 0
    for name in (short, long):
        assert Gate(name, 0.5, judge).score(network, **given) == found[long]
    with pytest.raises(UserError, match="unknown metric 'mious'"):
        Gate("mious", 0.5, judge).score(network, **given)
