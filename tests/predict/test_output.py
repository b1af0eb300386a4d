"""Results on disk are whole or absent."""

import resource

import numpy as np
import pytest
from PIL import Image

from espnetv2.errors import UserError
from espnetv2.predict.media import Source
from espnetv2.predict.output import save_look
from espnetv2.predict.pipeline import Look
from espnetv2.tasks.results import SegmentationMask

LIMIT = 50_000  # bytes of a file


def test_a_drawing_that_does_not_fit_the_disk_leaves_nothing(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    mask = SegmentationMask(noise[..., 0] % 2, ("a", "b"), ((0, 0, 0), (9, 9, 9)))
    look = Look(Source("picture", "x.png", "x"), Image.fromarray(noise), mask)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    try:
        with pytest.raises(UserError, match=r"x_overlay\.jpg: cannot be written"):
            save_look(look, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []
