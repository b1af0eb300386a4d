"""A tiny CamVid and a recipe for it, for the tests that run whole commands."""

import numpy as np
import pytest
from PIL import Image

RECIPE = """
base: camvid
data: {size: [48, 64], batch_size: 4, workers: 1}
epochs: 3
stages: []
"""


@pytest.fixture
def camvid(tmp_path):
    """Sixteen random pictures in CamVid's layout (`data/`), and `tiny.yaml`."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / "data" / kind / split).mkdir(parents=True)
        for i in range(16):
            labels = rng.integers(0, 11, (6, 8), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
            Image.fromarray(labels).save(tmp_path / "data" / "labels" / split / f"{i}.png")
            picture = np.stack([labels * 20, 255 - labels * 20, labels * 7], axis=2)
            Image.fromarray(picture).save(tmp_path / "data" / "images" / split / f"{i}.png")
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    return tmp_path
