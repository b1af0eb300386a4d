"""Decoding inside the graph gives what decoding outside of it gives."""

import pytest
import torch
from torch import nn

from espnetv2.deploy.outputs import Boxes, with_decoding
from espnetv2.errors import UserError
from espnetv2.models.espnetv2_ssd import RawDetections
from espnetv2.tasks import detect
from espnetv2.tasks.priors import priors


class Says(nn.Module):
    """Gives the same outputs whatever it sees."""

    def __init__(self, outputs):
        super().__init__()
        self.outputs = outputs

    def forward(self, image):
        return self.outputs


@pytest.mark.parametrize("seed", range(4))
def test_boxes_are_those_of_greedy_suppression(seed):
    torch.manual_seed(seed)
    grid = priors((96, 128))
    raw = RawDetections(
        3 * torch.randn(2, len(grid), 5) - torch.tensor([-8.5, 0, 0, 0, 0]),
        0.5 * torch.randn(2, len(grid), 4),
    )
    names = ("a", "b", "c", "d")
    expected = detect.decode(raw, grid, [(1, 1)] * 2, names, per_class=100, score_threshold=0.3)
    candidates = (raw.scores.softmax(-1)[..., 1:] > 0.3).sum(1)
    assert all(20 < len(one.scores) < 200 for one in expected)
    assert candidates.max() <= 100  # of which all take part
    assert candidates.sum() > sum(len(one.scores) for one in expected)  # and some are suppressed
    boxes, scores, labels = Boxes(Says(raw), grid, score_threshold=0.3)(torch.zeros(2, 3, 96, 128))
    assert boxes.shape == (2, 200, 4)
    for image, truth in enumerate(expected):
        count = len(truth.scores)
        assert torch.allclose(scores[image, :count], torch.from_numpy(truth.scores), atol=1e-6)
        assert not any(one[image, count:].any() for one in (boxes, scores, labels))
        assert labels[image, :count].tolist() == truth.labels.tolist()
        assert torch.allclose(boxes[image, :count], torch.from_numpy(truth.boxes), atol=1e-6)


def test_a_long_chain_of_overlapping_boxes_is_decided_link_by_link():
    count = 12
    boxes = torch.tensor([[0.05 * i, 0.2, 0.05 * i + 0.15, 0.4] for i in range(count)])
    apart = Boxes(Says(None), boxes)._apart(boxes[None, None])
    assert apart[0, 0].tolist() == [1.0, 0.0] * (count // 2)


def test_probabilities_and_masks():
    logits = torch.randn(2, 4, 6, 8)
    image = torch.zeros(2, 3, 6, 8)
    mask = with_decoding(Says(logits), task="segmentation", size=None)(image)
    assert mask.dtype == torch.uint8
    assert torch.equal(mask.long(), logits.argmax(1))
    shares = with_decoding(Says(logits[..., 0, 0]), task="classification", size=None)(image)
    assert torch.allclose(shares, logits[..., 0, 0].softmax(1))
    says = Says(logits[..., 0, 0])
    several = with_decoding(says, task="classification", size=None, multi_label=True)(image)
    assert torch.allclose(several, logits[..., 0, 0].sigmoid())


def test_what_cannot_be_decoded():
    with pytest.raises(UserError, match="give --size HxW instead of --dynamic"):
        with_decoding(Says(None), task="detection", size=None, detector=nn.Identity())
    with pytest.raises(UserError, match="no decoding for language"):
        with_decoding(Says(None), task="language", size=None)
