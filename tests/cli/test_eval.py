import json

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from close import assert_within
from espnetv2.cli.eval import eval_
from espnetv2.data import camvid
from espnetv2.data.preprocess import Preprocessing
from espnetv2.errors import UserError
from espnetv2.weights.load import Loaded


class Threshold(nn.Module):
    """Bright pixels are sky, the others road: right on every other picture below."""

    def forward(self, image):
        bright = image.mean(1, keepdim=True)
        logits = torch.full((len(image), 12, *image.shape[2:]), -1.0)
        logits[:, 0:1], logits[:, 3:4] = bright, -bright
        return logits


class Colour(nn.Module):
    """The class is the brightest channel."""

    def forward(self, image):
        return image.mean((2, 3))


def _loaded(network, task, classes, preprocessing):
    return Loaded(network.eval(), "made", task, classes, None, preprocessing, "here")


@pytest.fixture
def run(monkeypatch):
    half = {"mean": (0.5,) * 3, "std": (1.0,) * 3}
    networks = {
        "segmenter": _loaded(Threshold(), "segmentation", camvid.CLASSES, Preprocessing(**half)),
        "classifier": _loaded(
            Colour(), "classification", ("red", "green", "blue"), Preprocessing((32, 32), **half)
        ),
    }
    monkeypatch.setattr("espnetv2.predict.predictor.load_network", networks.__getitem__)
    app = typer.Typer()
    app.command("eval")(eval_)

    def call(*arguments):
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return call


@pytest.fixture
def camvid_like(tmp_path):
    for kind in ("images", "labels"):
        (tmp_path / kind / "val").mkdir(parents=True)
    for number in range(4):
        bright = np.zeros((40, 48, 3), dtype=np.uint8)
        bright[:20] = 255
        label = np.full((40, 48), 3, dtype=np.uint8)
        label[:20] = 0 if number % 2 else 11
        Image.fromarray(bright).save(tmp_path / f"images/val/{number}.png")
        Image.fromarray(label).save(tmp_path / f"labels/val/{number}.png")
    return tmp_path


def test_json_is_one_document_with_both_treatments_of_void(run, camvid_like):
    result = run("segmenter", "--dataset", "camvid", "--data", camvid_like, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert [score["protocol"] for score in told["scores"]] == ["void-counted", "void-ignored"]
    counted, ignored = (score["metrics"]["mean_iou"] for score in told["scores"])
    assert_within("void counted", counted, 100 * (1 / 2 + 1) / 2, 1e-9)
    assert ignored == 100
    assert told["scores"][0]["pictures"] == 4


def test_tables_name_classes_and_the_summary(run, camvid_like):
    result = run(
        *("segmenter", "--dataset", "camvid", "--data", camvid_like),
        *("--protocol", "train-size", "--size", "32x32", "--limit", 2, "--batch-size", 2),
    )
    assert result.exit_code == 0, result.output
    for text in ("road", "mean IoU", "train-size", "2 pictures in"):
        assert text in result.stdout


def test_a_folder_of_classes_is_judged_by_the_networks_names(run, tmp_path):
    for name, colour in (("red", "red"), ("blue", "blue"), ("green", "blue")):
        (tmp_path / "val" / name).mkdir(parents=True)
        Image.new("RGB", (40, 36), colour).save(tmp_path / "val" / name / "a.png")
    result = run("classifier", "--dataset", "imagefolder", "--data", tmp_path, "--json")
    score = json.loads(result.stdout)["scores"][0]
    assert_within("top-1", score["metrics"]["top1"], 200 / 3, 1e-4)
    assert score["per_class"]["green"]["values"]["top1"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["segmenter", "--dataset", "camvd"], "unknown data set 'camvd'; did you mean camvid"),
        (["segmenter", "--dataset", "camvid", "--protocol", "offical"], "did you mean official"),
        (["segmenter", "--dataset", "camvid", "--size", "wide"], "size 'wide' is not HEIGHTxWIDTH"),
        (["segmenter", "--dataset", "camvid", "--split", "no"], "no folder"),
        (["segmenter", "--dataset", "imagefolder"], "imagefolder is for classification"),
        (["segmenter", "--dataset", "camvid", "--squashed"], "--squashed is for --dataset voc"),
        (["classifier", "--dataset", "camvid"], "camvid is for segmentation"),
    ],
)
def test_mistakes_are_one_line(run, camvid_like, arguments, message):
    result = run(*arguments, "--data", camvid_like)
    assert isinstance(result.exception, UserError)
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)


@pytest.mark.data
def test_a_released_file_beats_chance_on_real_voc_pictures(shared):
    app = typer.Typer()
    app.command("eval")(eval_)
    file = shared / "weights/edgenets/espnetv2_s_0.5_pascal_256x256.pth"
    folder = shared / "data/voc2012_seg/val_squashed274"
    arguments = ["--dataset", "voc", "--data", folder, "--squashed", "--limit", "8", "--json"]
    result = CliRunner().invoke(app, [str(a) for a in (file, *arguments, "--protocol", "all")])
    assert result.exit_code == 0, result.output
    scores = {score["protocol"]: score for score in json.loads(result.stdout)["scores"]}
    assert len(scores) == 4
    assert scores["void-ignored"]["metrics"]["global_accuracy"] > 70
