import numpy as np
import pytest
import torch
import torch.nn.functional as F

from espnetv2.data.voc import PALETTE
from espnetv2.errors import UserError
from espnetv2.tasks.segment import decode, resize_labels


def _one_hot(labels, classes=3):
    return F.one_hot(torch.tensor(labels), classes).permute(2, 0, 1)[None].float()


def test_without_a_change_of_size_the_map_is_the_arg_max():
    labels = [[0, 1, 2], [2, 1, 0]]
    for enlarge in ("bilinear", "nearest"):
        result = decode(_one_hot(labels), [(2, 3)], "abc", enlarge=enlarge)[0]
        assert result.mask.tolist() == labels
        assert result.mask.dtype == np.uint8


def test_nearest_repeats_labels():
    result = decode(_one_hot([[0, 1], [2, 0]]), [(4, 4)], "abc", enlarge="nearest")[0]
    assert result.mask.tolist() == np.kron([[0, 1], [2, 0]], np.ones((2, 2))).tolist()


def test_bilinear_enlarges_logits_before_choosing():
    # between a certain 0 and a hesitant 1, the border moves towards the hesitant side
    logits = torch.tensor([[[[4.0, 0.0]], [[0.0, 1.0]]]])  # (1, 2, 1, 2)
    assert decode(logits, [(1, 8)], "ab", enlarge="nearest")[0].mask.tolist() == [[0] * 4 + [1] * 4]
    smooth = decode(logits, [(1, 8)], "ab", enlarge="bilinear")[0].mask.tolist()
    assert smooth == [[0] * 5 + [1] * 3]


def test_each_picture_gets_its_own_size():
    results = decode(torch.zeros(2, 3, 4, 4), [(9, 5), (31, 77)], "abc")
    assert [result.mask.shape for result in results] == [(9, 5), (31, 77)]


def test_colours_are_vocs_by_default():
    assert decode(torch.zeros(1, 3, 2, 2), [(2, 2)], "abc")[0].palette == PALETTE[:3]


def test_another_number_of_names_is_refused():
    with pytest.raises(UserError, match="3 classes but 2 names"):
        decode(torch.zeros(1, 3, 2, 2), [(2, 2)], "ab")


def test_shrinking_labels_never_invents_one():
    labels = np.array([[0, 200], [200, 0]], dtype=np.uint8).repeat(9, 0).repeat(9, 1)
    assert set(resize_labels(labels, (5, 7)).ravel()) == {0, 200}
