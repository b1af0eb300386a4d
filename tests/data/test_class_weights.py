import math

import torch

from close import assert_within
from espnetv2.data.class_weights import class_weights


def test_weights_are_the_rule():
    expected = torch.tensor([1 / math.log(1.10 + share) for share in (0.5, 0.3, 0.2)])
    assert_within("weights", class_weights(torch.tensor([50, 30, 20])), expected, 1e-6)


def test_a_first_class_that_is_absent_moves_nothing():
    """The official histogram spans the labels that occur, so its bins shift here."""
    weights = class_weights(torch.tensor([0, 60, 40]))
    assert weights[0] == 0
    assert_within("rest", weights[1:], class_weights(torch.tensor([60, 40])), 1e-6)


def test_weights_lie_in_the_known_range():
    weights = class_weights(torch.tensor([10**12, 1]))
    assert 1.34 < weights[0] < 1.36
    assert 10.4 < weights[1] < 10.5


def test_nothing_counted_weighs_nothing_differently():
    assert class_weights(torch.zeros(3, dtype=torch.int64)).tolist() == [1, 1, 1]
