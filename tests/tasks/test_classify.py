import pytest
import torch

from close import assert_within
from espnetv2.errors import UserError
from espnetv2.tasks.classify import decode


def test_the_best_come_first_with_softmax_scores():
    logits = torch.log(torch.tensor([[0.1, 0.6, 0.3], [0.7, 0.1, 0.2]]))
    first, second = decode(logits, ["a", "b", "c"], top=2)
    assert (first.labels, second.labels) == (("b", "c"), ("a", "c"))
    assert_within("scores", first.scores, [0.6, 0.3], 1e-6)


def test_top_never_exceeds_the_classes():
    assert len(decode(torch.zeros(1, 3), ["a", "b", "c"], top=5)[0].labels) == 3


def test_another_number_of_names_is_refused():
    with pytest.raises(UserError, match="3 classes but 2 names"):
        decode(torch.zeros(1, 3), ["a", "b"])


def test_no_class_at_all_is_refused():
    with pytest.raises(UserError, match="top=0"):
        decode(torch.zeros(1, 3), ["a", "b", "c"], top=0)
