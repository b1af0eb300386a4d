import subprocess
import sys

import pytest

from espnetv2.data.catalog import DATASETS, LABELS

SIZES = {
    "cityscapes": 20,
    "camvid": 12,
    "voc": 21,
    "coco": 80,
    "voc-detection": 20,
    "imagenet": 1000,
}


@pytest.mark.parametrize(("name", "classes"), SIZES.items())
def test_labels_have_their_number_of_names(name, classes):
    assert len(LABELS[name].classes) == classes
    assert LABELS[name].palette is None or len(LABELS[name].palette) == classes


def test_no_label_set_is_left_out():
    assert set(LABELS) == set(SIZES)
    assert set(DATASETS) == {"camvid", "cityscapes", "voc", "imagefolder"}


@pytest.mark.parametrize("name", sorted(set(SIZES) - {"imagenet"}))
def test_no_name_occurs_twice(name):
    assert len(set(LABELS[name].classes)) == SIZES[name]


def test_listing_labels_and_data_sets_imports_no_torch():
    code = (
        "import sys, espnetv2.data.catalog as c; c.LABELS['coco']; list(c.LABELS);"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
