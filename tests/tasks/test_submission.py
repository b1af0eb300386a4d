"""Files for the Cityscapes server."""

import numpy as np
import pytest
import torch
from PIL import Image

from espnetv2.data.sample import Sample
from espnetv2.errors import UserError
from espnetv2.tasks.submission import CityscapesSubmission

NAME = "bonn_000000_000019_leftImg8bit"


def _sample(width, height):
    return Sample(Image.new("RGB", (width, height)), np.zeros((height, width), np.uint8), NAME)


def test_labels_are_raw_ids_at_the_pictures_size_under_its_name(tmp_path):
    logits = torch.zeros(1, 20, 1, 3)
    for column, label in enumerate((0, 18, 19)):  # road, bicycle, background
        logits[0, label, 0, column] = 1
    CityscapesSubmission(tmp_path / "new")(logits, [_sample(6, 2)])
    with Image.open(tmp_path / "new" / f"{NAME}.png") as written:
        assert written.mode == "L"
        assert np.array(written).tolist() == [[7, 7, 33, 33, 0, 0]] * 2


def test_bilinear_enlarges_logits(tmp_path):
    logits = torch.tensor([[[[4.0, 0.0]], [[0.0, 1.0]]]])
    widths = []
    for enlarge in ("nearest", "bilinear"):
        CityscapesSubmission(tmp_path, enlarge=enlarge)(logits, [_sample(8, 1)])
        with Image.open(tmp_path / f"{NAME}.png") as written:
            widths.append(int((np.array(written) == 7).sum()))
    assert widths == [4, 5]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .* choose another --submit"):
        CityscapesSubmission(tmp_path / "file")
    writer = CityscapesSubmission(tmp_path / "folder")
    (tmp_path / "folder" / f"{NAME}.png").mkdir()
    with pytest.raises(UserError, match="cannot write"):
        writer(torch.zeros(1, 19, 2, 2), [_sample(2, 2)])
