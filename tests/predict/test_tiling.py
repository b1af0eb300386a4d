"""Tiles give the mask that one pass would give, in bounded memory."""

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from espnetv2.data.preprocess import Preprocessing
from espnetv2.errors import UserError
from espnetv2.predict.tiling import GRID, labels_in_bands, rounded, segment_tiled, spans
from espnetv2.tasks.segment import label_map


def noise(width, height):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def network(radius, *, stride=1, classes=5):
    """Sees `radius` pixels to each side; with a stride, maps of each pixel's block."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.Tanh()]
    for _ in range(radius - 2):
        layers += [nn.Conv2d(8, 8, 3, padding=1), nn.Tanh()]
    layers.append(nn.Conv2d(8, classes, 3, padding=1, stride=stride))
    if stride > 1:
        layers.append(nn.Upsample(scale_factor=stride, mode="nearest"))
    return nn.Sequential(*layers).eval().requires_grad_(False)


def untiled(model, image):
    return model(Preprocessing()(image)[None])[0].argmax(0).numpy()


@pytest.mark.parametrize(("width", "height"), [(300, 200), (257, 129), (128, 400), (96, 64)])
def test_tiles_equal_one_pass_when_a_quarter_of_the_overlap_covers_the_view(width, height):
    model, image = network(radius=6), noise(width, height)
    tiled = segment_tiled(model, image, Preprocessing(), tile=96, overlap=32)
    assert tiled.dtype == np.uint8
    np.testing.assert_array_equal(tiled, untiled(model, image))


def test_strided_networks_see_the_same_grid_in_tiles():
    blocks, image = network(radius=3, stride=4), noise(322, 250)

    def model(x):
        return blocks(x)[..., : x.shape[2], : x.shape[3]]

    tiled = segment_tiled(model, image, Preprocessing(), tile=128, overlap=64)
    np.testing.assert_array_equal(tiled, untiled(model, image))


def test_a_wider_view_differs_near_tile_borders_only():
    model, image = nn.Conv2d(3, 5, 29, padding=14).requires_grad_(False), noise(320, 96)
    tiled = segment_tiled(model, image, Preprocessing(), tile=96, overlap=32)
    wrong = np.flatnonzero((tiled != untiled(model, image)).any(axis=0))
    borders = [edge for s in spans(320, 96, 32) for edge in (s.start, s.stop)][1:-1]
    assert len(wrong)
    assert all(min(abs(x - edge) for edge in borders) <= 14 for x in wrong)


def test_without_overlap_tiles_stand_side_by_side():
    model, image = network(radius=2), noise(128, 64)
    tiled = segment_tiled(model, image, Preprocessing(), tile=64, overlap=0)
    halves = [untiled(model, image.crop((x, 0, x + 64, 64))) for x in (0, 64)]
    np.testing.assert_array_equal(tiled, np.hstack(halves))


def test_a_fixed_size_is_set_aside_and_the_norm_kept():
    model, image = network(radius=2), noise(200, 100)
    spec = Preprocessing(size=(40, 40), order="bgr", mean=(9.0, 8.0, 7.0), unit=1.0)
    tiled = segment_tiled(model, image, spec, tile=64, overlap=32)
    whole = model(spec.resized(None)(image)[None])[0].argmax(0).numpy()
    np.testing.assert_array_equal(tiled, whole)


@pytest.mark.parametrize(("width", "height"), [(200, 5), (1, 1), (33, 200)])
def test_slivers_work(width, height):
    mask = segment_tiled(
        network(radius=2), noise(width, height), Preprocessing(), tile=64, overlap=32
    )
    assert mask.shape == (height, width)


def test_small_maps_are_enlarged_to_the_tile():
    model = nn.Sequential(network(radius=2), nn.AvgPool2d(8))
    image = Image.fromarray(
        np.repeat(np.array([[[0] * 3, [255] * 3]], np.uint8), 64, 1).repeat(64, 0)
    )
    mask = segment_tiled(model, image, Preprocessing(), tile=64, overlap=32)
    assert mask.shape == (64, 128)
    assert (mask[:, :40] == mask[0, 0]).all()


@given(st.integers(1, 2000), st.integers(1, 8), st.integers(0, 4))
def test_spans_cover_the_axis_and_share_exactly_the_overlap(length, tiles, overlaps):
    tile, overlap = tiles * GRID, min(overlaps, tiles // 2) * GRID
    found = spans(length, tile, overlap)
    assert found[0].start == 0
    assert found[-1].stop == length
    for one, two in pairwise(found):
        assert one.stop - two.start == overlap
    for span in found:
        assert span.seen % GRID == 0
        assert span.seen <= span.start < span.stop
        assert span.stop - span.start <= tile
        assert span.stop - span.seen >= min(tile, length)
        assert span.stop - span.seen < tile + GRID


@pytest.mark.parametrize(("tile", "overlap"), [(0, 0), (64, 40), (64, -33)])
def test_senseless_tiles_are_refused(tile, overlap):
    with pytest.raises(UserError, match=r"give"):
        rounded(tile, overlap)


@pytest.mark.parametrize("size", [(70, 130), (9, 7), (64, 64), (1, 1)])
def test_bands_equal_enlarging_at_once(size):
    logits = torch.randn(5, 17, 23)
    banded = labels_in_bands(logits, size, rows=16)
    assert (banded == label_map(logits, size, enlarge="bilinear")).mean() > 0.999


HUGE = """
import resource, sys
import numpy as np
import torch
from torch import nn
from PIL import Image
from espnetv2.data.preprocess import Preprocessing
from espnetv2.predict.media import Source
from espnetv2.predict.output import save_look
from espnetv2.predict.pipeline import Tiles, look_at, read_pictures
from espnetv2.predict.predictor import Predictor
from espnetv2.weights.load import Loaded
from pathlib import Path

net = nn.Sequential(nn.Conv2d(3, 21, 3, padding=1, stride=8), nn.Upsample(scale_factor=8))
names = tuple(f"class {i}" for i in range(21))
loaded = Loaded(net, "tiny", "segmentation", names, None, Preprocessing(), "")
sources = [Source("picture", sys.argv[1], "huge")]
for look in look_at(Predictor(loaded), read_pictures(sources)):
    assert look.error is None, look.error
    record = save_look(look, Path(sys.argv[2]))
assert (record["height"], record["width"]) == (15000, 20000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_300_million_pixels_stay_under_4_gib(tmp_path):
    Image.new("RGB", (20_000, 15_000), (90, 120, 40)).save(tmp_path / "huge.jpg", quality=50)
    made = subprocess.run(
        [sys.executable, "-c", HUGE, tmp_path / "huge.jpg", tmp_path / "out"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    peak = int(made.stdout) * 1024
    assert peak < 4 * 2**30, f"{peak / 2**30:.2f} GiB"
    with Image.open(tmp_path / "out" / "huge_overlay.jpg") as preview:
        assert max(preview.size) <= 4096
