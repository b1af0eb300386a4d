import numpy as np
import pytest
import torch
from PIL import Image

from espnetv2.data.boxes import crop_view
from espnetv2.data.colours import distort, jitter
from espnetv2.data.draws import sample_generator
from espnetv2.data.transforms import POLICIES, policy
from espnetv2.data.views import View
from espnetv2.errors import UserError

IMAGE = Image.new("RGB", (500, 375))


def _views(name, size=(256, 256), boxes=None, image=IMAGE, count=300):
    draw = POLICIES[name].draw
    return [draw(image, size, boxes, sample_generator(0, 0, i)) for i in range(count)]


@pytest.mark.parametrize(("name", "smallest"), [("imagenet", 0.08), ("imagenet-light", 0.35)])
def test_imagenet_crops_lie_inside_and_span_the_areas(name, smallest):
    views = _views(name)
    areas = [v.width * v.height / (500 * 375) for v in views]
    aspects = [v.width / v.height for v in views]
    assert all(v.left >= 0 and v.left + v.width <= 500 for v in views)
    assert all(v.top >= 0 and v.top + v.height <= 375 for v in views)
    assert smallest - 0.01 < min(areas) < smallest + 0.08
    assert max(areas) > 0.8
    assert 0.74 < min(aspects) < 0.85
    assert 1.18 < max(aspects) < 1.35


def test_an_extreme_picture_is_cropped_in_the_middle():
    for view in _views("imagenet-light", image=Image.new("RGB", (1000, 10)), count=20):
        assert view.left >= 0
        assert view.left + view.width <= 1000
        assert view.height <= 10


@pytest.mark.parametrize("name", [name for name, p in POLICIES.items() if p.draw])
def test_half_of_the_views_are_mirrored(name):
    share = np.mean([view.mirrored for view in _views(name)])
    assert 0.4 < share < 0.6


def test_camvid_zooms_about_what_validation_shows():
    views = _views("camvid", size=(360, 480))
    zooms = [500 / view.width for view in views]
    assert 0.5 <= min(zooms) < 0.55
    assert 1.85 < max(zooms) <= 2
    assert 0.85 < np.median(zooms) < 1.15  # log-uniform
    assert all(abs(500 / v.width - 375 / v.height) < 1e-9 for v in views)
    assert any(view.left < 0 for view in views)
    assert any(view.left > 0 for view in views)


def test_edgenets_voc_pads_small_pictures_on_both_sides_equally():
    for view in _views("edgenets-voc"):
        scale = 256 / view.width
        assert 0.49 < scale < 2.01
        if view.width > 501:
            assert abs(view.left + (view.left + view.width) - 500) <= 2 / scale
        else:
            assert view.left >= -1e-9


@pytest.mark.parametrize(
    ("size", "low", "high"), [((256, 512), 0.25, 0.5), ((512, 1024), 0.35, 1.0)]
)
def test_edgenets_city_scales(size, low, high):
    views = _views("edgenets-city", size=size, image=Image.new("RGB", (2048, 1024)))
    scales = [size[1] / view.width for view in views]
    assert low - 0.001 <= min(scales) < low * 1.1
    assert high * 0.9 < max(scales) <= high


def test_ssd_crops_keep_an_object_and_expansion_happens():
    boxes = torch.tensor([[100.0, 100, 180, 200], [300, 50, 420, 330]])
    views = _views("ssd", boxes=boxes)
    for view in views:
        middle = (boxes[:, :2] + boxes[:, 2:]) / 2
        inside = (
            (middle[:, 0] > view.left)
            & (middle[:, 0] < view.left + view.width)
            & (middle[:, 1] > view.top)
            & (middle[:, 1] < view.top + view.height)
        )
        assert inside.any()
    assert any(view.width > 600 for view in views)
    assert any(view.width < 300 for view in views)


def test_the_overlap_condition_rejects(monkeypatch):
    boxes = torch.tensor([[100.0, 100, 150, 150]])
    whole = View(0, 0, 400, 400)
    monkeypatch.setattr("espnetv2.data.boxes._OVERLAPS", (0.1,))
    for i in range(100):
        crop = crop_view(whole, boxes, sample_generator(0, 0, i))
        if crop == whole:
            continue
        wide = min(150, crop.left + crop.width) - max(100, crop.left)
        high = min(150, crop.top + crop.height) - max(100, crop.top)
        shared = wide * high
        assert shared / (2500 + crop.width * crop.height - shared) >= 0.0999


def test_a_picture_without_boxes_is_cropped_too():
    for view in _views("ssd", boxes=torch.zeros(0, 4), count=50):
        assert view.width > 0


def test_colours_keep_their_mean_about():
    grey = Image.new("RGB", (20, 20), (100, 120, 140))
    for change in (distort, lambda image, g: jitter(image, g, strength=0.25)):
        means = [np.array(change(grey, sample_generator(0, 0, i))).mean() for i in range(300)]
        assert 110 < np.mean(means) < 130
        assert np.std(means) > 5


def test_jitter_of_strength_nothing_changes_nothing():
    noise = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    assert (np.array(jitter(image, sample_generator(0, 0, 0), strength=0.0)) == noise).all()


def test_a_policy_for_another_task_is_refused():
    with pytest.raises(UserError, match=r"'ssd' is for detection, not segmentation; choose from "):
        policy("ssd", task="segmentation")
    with pytest.raises(UserError, match=r"unknown augmentation 'imagnet'; did you mean imagenet"):
        policy("imagnet", task="classification")
