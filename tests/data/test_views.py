import numpy as np
import pytest
import torch
from PIL import Image

from close import assert_within
from espnetv2.data.preprocess import CONVENTIONS
from espnetv2.data.views import View, cut_boxes, cut_image, cut_mask, whole

PLAIN = CONVENTIONS["edgenets-segmentation"]


def _noise(width=50, height=40):
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("convention", list(CONVENTIONS))
def test_the_whole_view_is_what_prediction_sees(convention):
    image = _noise(64, 48)
    spec = CONVENTIONS[convention].resized((48, 64))
    direct = spec.normalize(torch.from_numpy(np.array(image)).permute(2, 0, 1)) / spec.divisor
    assert_within("input", cut_image(image, whole(image), spec), direct, 1e-5)


def test_bytes_are_resized_as_prediction_resizes_them():
    image = _noise()
    spec = PLAIN.resized((32, 36))
    assert_within("input", cut_image(image, whole(image), spec), spec(image), 1e-5)


def test_outside_is_the_mean_or_black():
    view = View(-25, 0, 50, 40)
    spec = PLAIN.resized((40, 50))
    mean = cut_image(_noise(), view, spec)
    assert (mean[:, :, :25] == 0).all()
    assert (mean[:, :, 25:] != 0).all()
    black = cut_image(_noise(), view, spec, outside="black")
    expected = spec.normalize(torch.zeros(3, 1, 1))
    assert_within("black", black[:, :, :25], expected.expand(3, 40, 25), 1e-6)


def test_a_mask_outside_is_ignored():
    mask = cut_mask(np.ones((40, 50), np.uint8), View(-25, 0, 50, 40), (40, 50))
    assert (mask[:, :25] == 255).all()
    assert (mask[:, 25:] == 1).all()


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("sharp", [False, True])
@pytest.mark.parametrize(
    "view", [(-10, -5, 80, 60), (10, 8, 20, 18), (-30.5, 12.25, 61.5, 20.5), (3, -20, 40, 100)]
)
@pytest.mark.parametrize("resize", ["pil", "plain"])
def test_picture_mask_and_box_stay_aligned(view, mirrored, sharp, resize):
    left, top, right, bottom = 12, 10, 28, 24
    labels = np.zeros((40, 50), np.uint8)
    labels[top:bottom, left:right] = 1
    image = Image.fromarray(np.repeat(labels[..., None] * 255, 3, axis=2))
    spec = CONVENTIONS["imagenet" if resize == "pil" else "edgenets-detection"].resized((64, 96))
    seen = View(*view, mirrored=mirrored)
    tensor = cut_image(image, seen, spec, outside="black", sharp=sharp)
    bright = tensor.mean(0) > spec.normalize(torch.full((3, 1, 1), 127.5)).mean()
    mask = cut_mask(labels, seen, (64, 96), outside=0).bool()
    box = cut_boxes(torch.tensor([[left, top, right, bottom]]).float(), seen)[0]
    x1, y1, x2, y2 = (box * torch.tensor([96, 64, 96, 64])).tolist()
    ys, xs = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(96) + 0.5, indexing="ij")
    boxed = (xs > x1) & (xs < x2) & (ys > y1) & (ys < y2)
    # the border may be off by a pixel; the inside may not
    border = 2 * (64 + 96)
    assert (mask != boxed).sum() <= 0.1 * border
    assert (bright != boxed).sum() <= 0.5 * border
    assert mask.sum() > 100
    assert not (
        mask & ~torch.nn.functional.max_pool2d(bright[None].float(), 5, 1, 2)[0].bool()
    ).any()


def test_mirroring_twice_the_box_is_the_box():
    boxes = torch.tensor([[2.0, 3, 20, 30]])
    plain = cut_boxes(boxes, View(0, 0, 50, 40))
    mirrored = cut_boxes(boxes, View(0, 0, 50, 40, mirrored=True))
    assert_within("x1", 1 - mirrored[:, 2], plain[:, 0], 1e-6)
    assert_within("y", mirrored[:, [1, 3]], plain[:, [1, 3]], 0)


def test_a_hairline_of_picture_still_gives_a_sample():
    tensor = cut_image(_noise(), View(49.99, 0, 50, 40), PLAIN.resized((32, 32)))
    assert torch.isfinite(tensor).all()
