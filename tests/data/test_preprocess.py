"""The five conventions, each against the formula written out."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.transforms import v2

from close import assert_within
from espnetv2.data.preprocess import CONVENTIONS, Preprocessing
from espnetv2.errors import UserError


@pytest.fixture
def picture():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (30, 41, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((410, 303), Image.Resampling.BICUBIC)


def plain(picture):
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float()


@pytest.mark.parametrize("size", [(410, 303), (303, 410), (256, 256), (300, 257)])
def test_classification_equals_torchvisions_resize_and_centre_crop(picture, size):
    picture = picture.resize(size)
    reference = v2.Compose(
        [
            v2.Resize(256),
            v2.CenterCrop(224),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    assert_within("imagenet", CONVENTIONS["imagenet"](picture), reference(picture), 1e-6)


def test_segmentation_is_antialiased_and_ignores_the_aspect(picture):
    ours = CONVENTIONS["edgenets-segmentation"].resized((64, 128))(picture)
    small = plain(picture.resize((128, 64), Image.Resampling.BILINEAR)) / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    assert_within("edgenets", ours, (small - mean[:, None, None]) / std[:, None, None], 1e-5)


def test_detection_is_fed_rgb(picture):
    """D45; plain bilinear on bytes, mean and std on the 0-255 scale."""
    ours = CONVENTIONS["edgenets-detection"].resized((100, 100))(picture)
    small = F.interpolate(plain(picture)[None], (100, 100), mode="bilinear")[0].round()
    mean = 255 * torch.tensor([0.485, 0.456, 0.406])
    std = 255 * torch.tensor([0.229, 0.224, 0.225])
    assert_within("detection", ours, (small - mean[:, None, None]) / std[:, None, None], 1e-4)


def test_the_second_division_is_kept(picture):
    """D12: BGR, normalised on the 0-255 scale, resized, then divided by 255 again."""
    ours = CONVENTIONS["espnet-cityscapes"].resized((64, 128))(picture)
    mean = torch.tensor([72.3923111, 82.90893555, 73.15840149])
    std = torch.tensor([45.3192215, 46.15289307, 44.91483307])
    bgr = (plain(picture).flip(0) - mean[:, None, None]) / std[:, None, None]
    expected = F.interpolate(bgr[None], (64, 128), mode="bilinear")[0] / 255
    assert_within("cityscapes", ours, expected, 1e-7)
    assert ours.abs().max() < 0.03


def test_camvid_keeps_the_pictures_size(picture):
    assert CONVENTIONS["espnet-camvid"](picture).shape == (3, 303, 410)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_convention_survives_json(name):
    spec = CONVENTIONS[name].resized((5, 7))
    import json

    assert Preprocessing.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_pictures_of_different_size_do_not_batch(picture):
    spec = CONVENTIONS["espnet-camvid"]
    with pytest.raises(UserError, match="set a size"):
        spec.batch([picture, picture.resize((20, 20))])
    assert spec.resized((32, 48)).batch([picture, picture.resize((20, 20))]).shape[0] == 2
