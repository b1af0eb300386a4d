"""The generator of deterministic weights makes the very numbers of the stored references."""

import json

import numpy as np
import pytest

from crcfill import crcfill, read_shapes


@pytest.mark.data
def test_first_values_equal_the_stored_examples(shared):
    examples = json.loads((shared / "parity" / "crcfill_examples.json").read_text())
    shapes = read_shapes(shared / "facts" / "keys" / "cls_s_1.0.tsv")
    assert len(examples) == 8
    for key, first in examples.items():
        filled = crcfill(key, shapes[key])
        assert filled.shape == shapes[key]
        np.testing.assert_array_equal(filled.ravel()[:4], np.float32(first), err_msg=key)


def test_a_value_depends_on_its_name_alone():
    np.testing.assert_array_equal(crcfill("a.weight", (3, 2)), crcfill("a.weight", (3, 2)))
    assert not np.array_equal(crcfill("a.weight", (3, 2)), crcfill("b.weight", (3, 2)))


def test_counters_of_batch_norm_are_integers_at_zero():
    assert crcfill("bn.num_batches_tracked", ()) == 0
    assert crcfill("bn.num_batches_tracked", ()).dtype == np.int64
