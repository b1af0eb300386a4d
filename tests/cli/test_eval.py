import json

import numpy as np
import pytest
import torch
import typer
import yaml
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from close import assert_within
from espnetv2.cli.eval import eval_
from espnetv2.data import camvid, cityscapes
from espnetv2.data.preprocess import Preprocessing
from espnetv2.errors import UserError
from espnetv2.models.eru_lm import ERULanguageModel, Layout
from espnetv2.models.espnetv2_ssd import RawDetections
from espnetv2.tasks.multibox import match
from espnetv2.tasks.priors import priors
from espnetv2.weights.load import Loaded


class Threshold(nn.Module):
    """Bright pixels are sky, the others road: right on every other picture below."""

    def __init__(self, classes=12):
        super().__init__()
        self.classes = classes

    def forward(self, image):
        bright = image.mean(1, keepdim=True)
        logits = torch.full((len(image), self.classes, *image.shape[2:]), -1.0)
        logits[:, 0:1], logits[:, 3:4] = bright, -bright
        return logits


class Colour(nn.Module):
    """The class is the brightest channel."""

    def forward(self, image):
        return image.mean((2, 3))


def _loaded(network, task, classes, preprocessing):
    return Loaded(network.eval(), "made", task, classes, None, preprocessing, "here")


class Finder(nn.Module):
    """Finds the box of the first class in every picture, at a fixed place."""

    def __init__(self, box):
        super().__init__()
        grid = priors((64, 64))
        labels, self.offsets = match(torch.tensor([box]), torch.tensor([1]), grid)
        self.scores = 30.0 * nn.functional.one_hot(labels, 3).float()

    def forward(self, image):
        many = len(image)
        return RawDetections(self.scores.expand(many, -1, -1), self.offsets.expand(many, -1, -1))


BOX = (0.2, 0.2, 0.7, 0.6)


@pytest.fixture
def run(monkeypatch):
    half = {"mean": (0.5,) * 3, "std": (1.0,) * 3}
    networks = {
        "segmenter": _loaded(Threshold(), "segmentation", camvid.CLASSES, Preprocessing(**half)),
        "classifier": _loaded(
            *(Colour(), "classification", ("red", "green", "blue")),
            Preprocessing((32, 32), fit="center", **half),
        ),
        "detector": _loaded(
            Finder(BOX), "detection", ("cell", "rod"), Preprocessing((64, 64), **half)
        ),
        "driver": _loaded(Threshold(19), "segmentation", cityscapes.CLASSES, Preprocessing(**half)),
        "speaker": _loaded(
            ERULanguageModel(Layout(width=16, embedding=16, layers=1), vocabulary=4),
            *("language", (), Preprocessing()),
        ),
    }
    monkeypatch.setattr("espnetv2.predict.predictor.load_network", networks.__getitem__)
    monkeypatch.setattr("espnetv2.weights.load.load_network", networks.__getitem__)
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


XML = """<annotation>{}</annotation>"""
OBJECT = """<object><name>{}</name><difficult>{}</difficult><bndbox><xmin>{}</xmin>
<ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"""


@pytest.fixture
def cells(tmp_path):
    """Three pictures of 200 x 100: the cell in its place, elsewhere, and with a difficult rod."""
    corners = [round(side * extent) for side, extent in zip(BOX, (200, 100) * 2, strict=True)]
    for kind in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (tmp_path / kind).mkdir(parents=True)
    objects = [
        [("cell", 0, *corners)],
        [("cell", 0, 1, 1, 30, 20)],
        [("cell", 0, *corners), ("rod", 1, 150, 50, 199, 99)],
    ]
    for number, rows in enumerate(objects):
        Image.new("RGB", (200, 100)).save(tmp_path / f"JPEGImages/{number}.jpg")
        text = XML.format("".join(OBJECT.format(*row) for row in rows))
        (tmp_path / f"Annotations/{number}.xml").write_text(text)
    (tmp_path / "ImageSets/Main/val.txt").write_text("0\n1\n2\n")
    return tmp_path


def test_boxes_of_xml_files_are_judged_by_both_measures_of_voc(run, cells):
    result = run("detector", "--dataset", "voc-boxes", "--data", cells, "--json")
    assert result.exit_code == 0, result.output
    told = {score["protocol"]: score for score in json.loads(result.stdout)["scores"]}
    # found, missed with a false alarm, found: the scores tie, and the order of pictures decides
    every = told["voc-all-point"]["metrics"]["ap50"]
    assert_within("all points", every, 100 * (1 + 2 / 3) / 3, 1e-3)
    eleven = told["voc-11-point"]["metrics"]["ap50"]
    assert_within("11 points", eleven, 100 * (4 + 3 * 2 / 3) / 11, 1e-3)
    assert told["voc-all-point"]["per_class"]["rod"]["values"]["ap50"] is None
    assert told["voc-all-point"]["per_class"]["cell"]["count"] == 3


def test_boxes_have_a_table(run, cells):
    result = run(
        *("detector", "--dataset", "voc-boxes", "--data", cells),
        *("--protocol", "coco", "--batch-size", 2),
    )
    assert result.exit_code == 0, result.output
    for text in ("cell", "AP75", "boxes", "mean average precision", "3 pictures in"):
        assert text in result.stdout


def _coco(tmp_path, names, annotations):
    """An instances file and two black pictures of 200 x 100 but for their colour."""
    (tmp_path / "annotations").mkdir()
    (tmp_path / "images/val").mkdir(parents=True)
    for number, colour in enumerate(("red", "blue")):
        Image.new("RGB", (200, 100), colour).save(tmp_path / f"images/val/{number}.png")
    content = {
        "images": [
            {"id": n, "file_name": f"{n}.png", "height": 100, "width": 200} for n in range(2)
        ],
        "categories": [{"id": 3 * n + 1, "name": name} for n, name in enumerate(names)],
        "annotations": [
            {"id": n, "image_id": image, "category_id": category, "bbox": box, "area": 1}
            for n, (image, category, box) in enumerate(annotations)
        ],
    }
    (tmp_path / "annotations/instances_val.json").write_text(json.dumps(content))
    return tmp_path


def test_boxes_of_an_instances_file_are_judged_by_cocos_measure(run, tmp_path):
    x1, y1, x2, y2 = (side * extent for side, extent in zip(BOX, (200, 100) * 2, strict=True))
    box = [x1, y1, x2 - x1, y2 - y1]
    data = _coco(tmp_path, ("cell", "rod"), [(0, 1, box), (1, 1, box)])
    result = run("detector", "--dataset", "coco-boxes", "--data", data, "--json")
    assert result.exit_code == 0, result.output
    (score,) = json.loads(result.stdout)["scores"]
    assert score["protocol"] == "coco"
    assert_within("AP", score["metrics"]["ap"], 100, 1e-3)


def test_several_classes_a_picture_are_judged_by_f1_on_all_of_it(run, tmp_path):
    box = [0, 0, 9, 9]
    names = ("red", "green", "blue")
    data = _coco(tmp_path, names, [(0, 1, box), (1, 7, box), (1, 4, box)])
    mostly_blue = Image.new("RGB", (200, 100), "blue")
    mostly_blue.paste("black", (60, 0, 140, 100))  # a crop of the middle would see black
    mostly_blue.save(data / "images/val/1.png")
    result = run(
        *("classifier", "--dataset", "coco-multilabel", "--data", data, "--size", "64", "--json")
    )
    assert result.exit_code == 0, result.output
    metrics = json.loads(result.stdout)["scores"][0]["metrics"]
    # a class is named when its channel is brighter than a half: red, and blue but not green
    assert_within("overall", metrics["f1_overall"], 100 * 4 / 5, 1e-3)
    assert_within("class-wise", metrics["f1_class"], 100 * 2 / 3, 1e-3)
    assert_within("map", metrics["map"], 100 * (1 + 0.5 + 1) / 3, 1e-3)


def test_own_masks_are_judged_by_the_names_in_their_yaml(run, camvid_like):
    """Grey values are of their own; a network's classes are found by name."""
    for path in (camvid_like / "labels/val").iterdir():
        label = np.asarray(Image.open(path))
        own = np.select([label == 0, label == 3], [7, 2], 255).astype(np.uint8)
        Image.fromarray(own).save(path)
    names = {7: "sky", 2: "road"} | {
        20 + number: name
        for number, name in enumerate(camvid.CLASSES)
        if name not in ("sky", "road")
    }
    (camvid_like / "data.yaml").write_text(yaml.safe_dump({"classes": names}))
    result = run("segmenter", "--dataset", "masks", "--data", camvid_like, "--json")
    assert result.exit_code == 0, result.output
    (score,) = json.loads(result.stdout)["scores"]
    assert score["protocol"] == "void-ignored"
    assert score["metrics"]["mean_iou"] == 100
    assert score["pictures"] == 4


def test_a_table_of_pictures_is_judged(run, tmp_path):
    for colour in ("red", "blue"):
        Image.new("RGB", (40, 36), colour).save(tmp_path / f"{colour}.png")
    (tmp_path / "val.csv").write_text("path,label\nred.png,red\nblue.png,green\n")
    result = run("classifier", "--dataset", "csv", "--data", tmp_path, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["scores"][0]["metrics"]["top1"] == 50
    (tmp_path / "val.csv").write_text("path,labels\nred.png,red\nblue.png,green|blue\n")
    arguments = ("--dataset", "csv-multilabel", "--data", tmp_path, "--json")
    result = run("classifier", *arguments)
    assert result.exit_code == 0, result.output
    (score,) = json.loads(result.stdout)["scores"]
    # red and blue are found, green is not
    assert_within("overall", score["metrics"]["f1_overall"], 100 * 4 / 5, 1e-3)
    mistaken = run("classifier", "--dataset", "csv", "--data", tmp_path)
    assert "classification needs one" in str(mistaken.exception)


@pytest.fixture
def text(tmp_path):
    for part in ("train", "valid", "test"):
        (tmp_path / f"{part}.txt").write_text("a b\nb a\n" * 20)
    return tmp_path


def test_a_text_is_judged_by_perplexity(run, text):
    result = run("speaker", "--dataset", "text", "--data", text, "--split", "test", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    (score,) = told["scores"]
    assert score["words"] == 119
    assert_within("exp", score["metrics"]["perplexity"], np.exp(score["metrics"]["loss"]), 1e-3)
    assert 3 < score["metrics"]["perplexity"] < 6  # four words, untrained
    shown = run("speaker", "--dataset", "text", "--data", text)
    assert "119 words in" in shown.stdout


def test_a_text_of_another_vocabulary_is_refused(run, text):
    (text / "train.txt").write_text("a b c d e\n")
    with pytest.raises(UserError, match="7 words but the network knows 4"):
        raise run("speaker", "--dataset", "text", "--data", text).exception


def test_submission_files_are_written_beside_the_scores(run, tmp_path):
    name = "bonn_000000_000019"
    for kind, file in (("leftImg8bit", "leftImg8bit"), ("gtFine", "gtFine_labelIds")):
        folder = tmp_path / kind / "val/bonn"
        folder.mkdir(parents=True)
        colour = np.full((40, 48, 3), 255, np.uint8) if kind == "leftImg8bit" else None
        label = np.full((40, 48), 7, np.uint8)
        Image.fromarray(label if colour is None else colour).save(folder / f"{name}_{file}.png")
    arguments = ["--dataset", "cityscapes", "--data", tmp_path, "--size", "32", "--json"]
    result = run("driver", *arguments, "--submit", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["scores"][0]["metrics"]["mean_iou"] == 100
    with Image.open(tmp_path / "out" / f"{name}_leftImg8bit.png") as written:
        assert np.array(written).tolist() == [[7] * 48] * 40


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["detector", "--dataset", "camvid"], "camvid is for segmentation"),
        (["segmenter", "--dataset", "voc-boxes"], "voc-boxes is for detection"),
        (["segmenter", "--dataset", "text"], "text is for language"),
        (["detector", "--dataset", "voc-boxes", "--protocol", "f1"], "'f1' does not fit"),
        (["segmenter", "--dataset", "camvid", "--submit", "x"], "--submit is for --dataset city"),
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
