"""What `load` returns: any kind of picture in, the right kind of result out."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from espnetv2.data.preprocess import CONVENTIONS, Preprocessing
from espnetv2.errors import UserError
from espnetv2.models.espnetv2_ssd import RawDetections
from espnetv2.predict import predictor as module
from espnetv2.predict.predictor import Predictor, as_picture, load
from espnetv2.tasks.detect import priors
from espnetv2.weights.load import Loaded

NAMES = ("grass", "road", "sky")
COLOURS = ((0, 255, 0), (9, 9, 9), (0, 0, 255))


class Brightest(nn.Module):
    """A segmenter that names the strongest colour channel."""

    def forward(self, x):
        return x[:, (1, 0, 2)]


class Mean(nn.Module):
    """A classifier of the mean colour."""

    def forward(self, x):
        return x.mean((2, 3))[:, (1, 0, 2)]


class OneBox(nn.Module):
    """A detector that is sure of prior 100 being a road, and half sure of prior 5000."""

    def __init__(self, size):
        super().__init__()
        self.count = len(priors(size))

    def forward(self, x):
        scores = torch.zeros(len(x), self.count, 4)
        scores[..., 0] = 20
        scores[:, 100, 2], scores[:, 5000, 1] = 30, 19.5
        return RawDetections(scores, torch.zeros(len(x), self.count, 4))


def segmenter(**options):
    plain = Preprocessing(size=options.pop("own", None), mean=(0, 0, 0), std=(1, 1, 1))
    loaded = Loaded(Brightest(), "colours", "segmentation", NAMES, COLOURS, plain, "test")
    return Predictor(loaded, **options)


def classifier(**options):
    spec = CONVENTIONS["imagenet"]
    return Predictor(Loaded(Mean(), "mean", "classification", NAMES, None, spec, ""), **options)


def halves(width=40, height=50):
    image = Image.new("RGB", (width, height), (0, 200, 0))
    image.paste((0, 0, 200), (0, 0, width, height // 2))
    return image


def test_path_picture_and_array_give_the_same(tmp_path):
    image = halves()
    image.save(tmp_path / "x.png")
    predict = segmenter()
    expected = predict(image).mask
    for given in (tmp_path / "x.png", str(tmp_path / "x.png"), np.asarray(image)):
        np.testing.assert_array_equal(predict(given).mask, expected)
    assert expected[0, 0] == 2
    assert expected[-1, -1] == 0


@pytest.mark.parametrize("kind", ["deep", "clear", "turned"])
def test_an_opened_picture_is_seen_as_its_file_is(tmp_path, kind):
    file, image = tmp_path / "x.png", halves()
    exif = Image.Exif()
    if kind == "deep":
        image = Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 257)
    elif kind == "clear":
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    else:
        exif[0x0112] = 6
    image.save(file, exif=exif)
    with Image.open(file) as opened:
        assert np.array_equal(as_picture(opened), as_picture(file))
        assert opened.size == image.size  # the picture stays


def test_other_modes_are_converted():
    assert segmenter()(Image.new("L", (40, 40), 9)).mask.shape == (40, 40)


@pytest.mark.parametrize("given", [np.zeros((4, 4)), np.zeros((4, 4, 4), np.uint8), 7, None])
def test_other_things_are_refused(given):
    with pytest.raises(UserError, match="give a path"):
        segmenter()(given)


def test_without_a_size_the_picture_keeps_its_own():
    assert segmenter().preprocess(halves(41, 53)).shape == (1, 3, 53, 41)
    assert segmenter(own=(64, 96)).preprocess(halves()).shape == (1, 3, 64, 96)
    assert segmenter(own=(64, 96), size=48).preprocess(halves()).shape == (1, 3, 48, 48)


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (200, 4), (31, 33)])
def test_pictures_smaller_than_a_network_takes_are_enlarged(size):
    predict = segmenter()
    assert min(predict.preprocess(Image.new("RGB", size)).shape[2:]) >= 32
    assert predict(Image.new("RGB", size)).mask.shape == size[::-1]


@pytest.mark.parametrize("enlarge", ["bilinear", "nearest"])
def test_a_mask_has_its_pictures_size_and_the_weights_names(enlarge):
    result = segmenter(own=(32, 32), enlarge=enlarge)(halves(101, 67))
    assert result.mask.shape == (67, 101)
    assert result.palette == COLOURS
    assert set(result.shares) == {"grass", "sky"}


def test_enlarge_decides_between_logits_and_labels(monkeypatch):
    image = Image.new("RGB", (32, 32), (100, 0, 0))
    image.paste((0, 255, 0), (0, 0, 16, 32))
    big = image.resize((320, 320), Image.Resampling.NEAREST)
    smooth = segmenter(own=(32, 32), enlarge="bilinear")(big).shares["grass"]
    blocky = segmenter(own=(32, 32), enlarge="nearest")(big).shares["grass"]
    assert blocky == 0.5
    assert smooth > 0.505
    monkeypatch.setattr(module, "LARGEST_LOGITS", 10)
    assert segmenter(own=(32, 32), enlarge="bilinear")(big).shares["grass"] == smooth


def test_a_batch_of_mixed_sizes_keeps_its_order():
    images = [halves(40, 50), halves(60, 70), halves(40, 50).rotate(180)]
    together = segmenter().predict(images)
    for image, result in zip(images, together, strict=True):
        np.testing.assert_array_equal(result.mask, segmenter()(image).mask)
    assert segmenter().predict([]) == []


def test_a_picture_too_large_for_one_pass_is_cut_into_tiles(monkeypatch):
    monkeypatch.setattr(module, "LARGEST", 1000)
    seen = []
    predict = segmenter()
    predict.model.register_forward_hook(lambda m, inputs, out: seen.append(inputs[0].shape))
    image = halves(2100, 40)
    np.testing.assert_array_equal(predict(image).mask[:, 5], [2] * 20 + [0] * 20)
    assert len(seen) > 1


def test_a_classifier_names_the_best_first():
    result = classifier(top=2)(Image.new("RGB", (300, 200), (0, 0, 250)))
    assert result.labels[0] == "sky"
    assert len(result.labels) == 2


def test_a_detectors_boxes_are_in_pixels_and_above_the_score():
    spec = CONVENTIONS["edgenets-detection"].resized((300, 300))
    loaded = Loaded(OneBox((300, 300)), "one", "detection", NAMES, None, spec, "")
    x, y, w, h = priors((300, 300))[100].tolist()
    result = Predictor(loaded, score=0.5)(Image.new("RGB", (600, 900)))
    assert [result.classes[i] for i in result.labels] == ["road"]
    expected = [(x - w / 2) * 600, (y - h / 2) * 900, (x + w / 2) * 600, (y + h / 2) * 900]
    expected = np.clip(expected, 0, [600, 900, 600, 900])
    np.testing.assert_allclose(result.boxes[0], expected, rtol=1e-4)
    assert len(Predictor(loaded, score=0.3)(Image.new("RGB", (600, 900)))) == 2


def test_results_carry_no_graph_and_the_model_is_in_eval_mode():
    predict = segmenter()
    assert not predict.model.training
    assert predict.run(predict.preprocess(halves())).is_inference()


def test_what_does_not_fit_is_refused():
    spec = Preprocessing()
    with pytest.raises(UserError, match="does not take pictures"):
        Predictor(Loaded(Mean(), "lm", "language", (), None, spec, ""))
    with pytest.raises(UserError, match="fixed size"):
        Predictor(Loaded(Mean(), "ssd", "detection", NAMES, None, spec, ""))
    with pytest.raises(UserError, match="device 'gpu'"):
        segmenter(device="gpu")
    with pytest.raises(UserError, match="at least 32"):
        segmenter(size=(16, 64))
    with pytest.raises(UserError, match="enlarge"):
        segmenter(enlarge="cubic")
    with pytest.raises(UserError, match="for segmentation"):
        classifier().segment_tiled(halves())


@pytest.mark.data
def test_official_weights_see_the_aeroplane(shared):
    predict = load(shared / "weights" / "edgenets" / "espnetv2_s_0.5_pascal_256x256.pth")
    picture = shared / "data" / "voc2012_seg" / "fullres10" / "images" / "2007_000033.jpg"
    shares = predict(picture).shares
    assert list(shares)[:2] == ["background", "aeroplane"]
    assert 0.05 < shares["aeroplane"] < 0.4


@pytest.mark.data
def test_tiles_of_a_real_network_agree_with_one_pass(shared):
    predict = load(shared / "weights" / "edgenets" / "espnetv2_s_0.5_city_512x256.pth")
    predict.preprocessing = predict.preprocessing.resized(None)
    folder = shared / "data" / "cityscapes" / "leftImg8bit"
    image = Image.open(next(folder.rglob("*.png"))).convert("RGB").crop((0, 200, 1024, 712))
    whole, tiled = predict(image).mask, predict.segment_tiled(image, tile=512, overlap=128).mask
    assert (whole == tiled).mean() > 0.96  # 0.980 measured: the decoder pools globally
