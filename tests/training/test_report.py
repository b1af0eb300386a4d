import json
import logging
import math
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import tiny_sets
from espnetv2.data.preprocess import CONVENTIONS
from espnetv2.data.training_sets import DataSpec, open_training_data
from espnetv2.models.catalog import entry
from espnetv2.tasks.detection_training import DetectionTraining
from espnetv2.tasks.multilabel import MultiLabelTraining
from espnetv2.tasks.training import ClassificationTraining, SegmentationTraining
from espnetv2.training import figures
from espnetv2.training.findings import find
from espnetv2.training.recipe import parse
from espnetv2.training.report import write_language_report, write_report
from espnetv2.training.sheet import choose, picture_of

CLASSES = ("cat", "dog", "eel", "$x_")
ROWS = [
    {"epoch": 0, "rate": 0.1, "loss": 3.0, "val_loss": 2.0, "val_top1": 10.0, "seconds": 1.0},
    {"epoch": 1, "rate": 0.05, "loss": 2.0, "val_loss": math.nan, "val_top1": 30.0, "seconds": 1.0},
]
FILES = {
    "classification": {"curves.png", "confusion.png", "classes.png", "predictions.png"},
    "segmentation": {"curves.png", "confusion.png", "classes.png", "predictions.png"},
    "multilabel": {"curves.png", "classes.png", "predictions.png"},
    "detection": {"curves.png", "classes.png", "predictions.png"},
}


class Whole(nn.Module):
    """A class for a picture; noise gets all kinds of answers."""

    def __init__(self, outputs):
        super().__init__()
        self.linear = nn.Linear(3 * 32 * 32, outputs)

    def forward(self, x):
        return self.linear(x.flatten(1))


def opened(task, root):
    """Network, task, data and recipe of a task, on the tiny set of it."""
    formats = {"multilabel": "csv", "detection": "voc-boxes", "segmentation": "masks"}
    if task == "classification":
        tiny_sets.imagefolder(root, classes=CLASSES, each=5)
    elif task == "segmentation":
        tiny_sets.masks(root, values=(0, 1, 2, 255))
    elif task == "detection":
        tiny_sets.voc_boxes(root, [("cat", 5, 6, 30, 30, 0), ("dog", 10, 1, 48, 40, 1)], count=3)
    else:
        names = ["cat|dog", "dog", "eel|cat", "", "eel|dog|cat", "cat"]
        for split in ("train", "val"):
            pictures = [root / f"{split}{i}.png" for i in range(6)]
            for number, path in enumerate(pictures):
                tiny_sets.picture(path, seed=number)
            rows = [(path.name, name) for path, name in zip(pictures, names, strict=True)]
            tiny_sets.table(root, rows, name=f"{split}.csv")
    convention = "edgenets-detection" if task == "detection" else "imagenet"
    where = {"format": formats.get(task, "imagefolder"), "size": (32, 32), "convention": convention}
    if task == "segmentation":
        where["classes"] = ("sky", "sea", "sand")
    models = {"segmentation": "espnetv2_seg_s0_5", "detection": "espnetv2_ssd300_s0_5"}
    values = {
        "model": models.get(task, "espnetv2_s0_5"),
        "task": task,
        "data": {**where, "batch_size": 2},
    }
    recipe = parse({**values, "data": {**values["data"], "workers": 0}}, source="test")
    data = open_training_data(DataSpec(root=root, augment="none", **where), task=task)
    count = len(data.classes)
    if task == "classification":
        return Whole(count), ClassificationTraining(count), data, recipe
    if task == "multilabel":
        return Whole(count), MultiLabelTraining(count), data, recipe
    if task == "segmentation":
        return nn.Conv2d(3, count, 1), SegmentationTraining(count), data, recipe
    network = entry("espnetv2_ssd300_s0_5").build(num_classes=count + 1, in_channels=3)
    return network, DetectionTraining(data.classes, coco=False), data, recipe


def report(folder, task, root):
    network, training, data, recipe = opened(task, root)
    write_report(folder, network, training, data, recipe, ROWS, limit=None)
    return network, training, data, json.loads((folder / "report" / "report.json").read_text())


def answers(network, data):
    network.eval()
    with torch.no_grad():
        return [(network(values[None]), truth) for values, truth in data.val]


def validated(network, training, data):
    """Scores as the training module computes them."""
    metrics = training.metrics()
    network.eval()
    for values, truth in data.val:
        images, targets = data.collate([(values, truth)])
        with torch.no_grad():
            training.update(metrics, training.loss(network, images, targets)[1], targets)
    return training.scores(metrics)


def test_classification_numbers_equal_a_plain_count(tmp_path):
    network, training, data, found = report(tmp_path, "classification", tmp_path / "data")
    expected = np.zeros((4, 4), int)
    for logits, truth in answers(network, data):
        expected[truth, int(logits.argmax())] += 1
    assert found["confusion"] == expected.tolist()
    assert len(np.flatnonzero(expected.sum(0))) > 1  # not one answer to everything
    hits = [100 * expected[i, i] / 5 for i in range(4)]
    assert [(row["accuracy"], row["pictures"]) for row in found["per_class"]] == [
        (pytest.approx(hit), 5) for hit in hits
    ]
    assert [row["class"] for row in found["per_class"]] == sorted(CLASSES)
    assert found["scores"]["top1"] == pytest.approx(100 * expected.trace() / 20, abs=1e-3)
    assert found["scores"]["top1"] == pytest.approx(
        validated(network, training, data)["top1"], abs=1e-3
    )


def test_segmentation_numbers_leave_void_out(tmp_path):
    network, training, data, found = report(tmp_path, "segmentation", tmp_path / "data")
    expected = np.zeros((3, 3), int)
    for logits, truth in answers(network, data):
        for true, said in zip(truth.flatten(), logits[0].argmax(0).flatten(), strict=True):
            if true != 255:
                expected[true, said] += 1
    assert found["confusion"] == expected.tolist()
    assert expected.sum() == 3 * 32 * 24  # a quarter is void
    for i, row in enumerate(found["per_class"]):
        union = expected[i].sum() + expected[:, i].sum() - expected[i, i]
        assert row["iou"] == pytest.approx(100 * expected[i, i] / union, abs=1e-3)
        assert row["pixels"] == expected[i].sum()
    scores = validated(network, training, data)
    assert found["scores"] == pytest.approx(scores, abs=1e-3)


def test_multilabel_numbers_equal_a_plain_count(tmp_path):
    network, training, data, found = report(tmp_path, "multilabel", tmp_path / "data")
    said = torch.cat([logits > 0 for logits, _ in answers(network, data)])
    true = torch.stack([truth > 0.5 for _, truth in data.val])
    for i, row in enumerate(found["per_class"]):
        hits, misses = int((said & true)[:, i].sum()), int((said ^ true)[:, i].sum())
        assert row["f1"] == pytest.approx(100 * 2 * hits / (2 * hits + misses), abs=1e-3)
        assert row["pictures"] == int(true[:, i].sum())
    assert "confusion" not in found
    assert found["scores"] == pytest.approx(validated(network, training, data), abs=1e-3)


def test_detection_numbers_are_those_of_training(tmp_path):
    network, training, data, found = report(tmp_path, "detection", tmp_path / "data")
    assert [(row["class"], row["boxes"]) for row in found["per_class"]] == [("cat", 3), ("dog", 0)]
    assert found["per_class"][1]["ap50"] is None  # only difficult ones
    expected = validated(network, training, data)["ap50"]
    assert found["scores"]["ap50"] == pytest.approx(expected, abs=1e-3)
    assert found["per_class"][0]["ap50"] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("task", FILES)
def test_every_picture_shows_something(task, tmp_path):
    network, *_ = report(tmp_path, task, tmp_path / "data")
    assert network.training  # as it was
    files = {path.name for path in (tmp_path / "report").iterdir()}
    assert files == FILES[task] | {"report.json"}
    for name in FILES[task]:
        with Image.open(tmp_path / "report" / name) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) > 100
            levels = np.asarray(picture.convert("L"))
            assert 0.01 < (levels < 250).mean() < 0.99, name


def test_the_limit_counts_batches(tmp_path):
    network, _, data, recipe = opened("classification", tmp_path)
    found = find(network, data, recipe, limit=3)
    assert found.pictures == 6
    assert found.confusion is not None
    assert found.confusion.sum() == 6


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_a_picture_comes_back_from_its_input(convention, tmp_path):
    path = tiny_sets.picture(tmp_path / "a.png", size=(37, 33))
    preprocessing = CONVENTIONS[convention].resized(None)
    with Image.open(path) as picture:
        again = picture_of(preprocessing(picture), preprocessing)
        np.testing.assert_array_equal(np.asarray(again), np.asarray(picture))


def test_wrong_ones_come_first_and_do_not_hide_right_ones():
    wrong = np.arange(100) % 2 == 1
    chosen = choose(100, wrong)
    assert len(set(chosen)) == 12
    assert wrong[chosen].tolist() == [True] * 6 + [False] * 6
    assert len(choose(100, np.ones(100, bool))) == 12
    assert choose(3, None) == [0, 1, 2]


def test_without_matplotlib_there_is_one_line_and_no_chart(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    report(tmp_path, "classification", tmp_path / "data")
    lines = [record.message for record in caplog.records]
    assert len(lines) == 1
    assert "espnetv2[plots]" in lines[0]
    files = {path.name for path in (tmp_path / "report").iterdir()}
    assert files == {"report.json", "predictions.png"}


def test_a_failure_is_said_and_ends_nothing(tmp_path, caplog):
    network, training, data, recipe = opened("classification", tmp_path / "data")
    network.linear = nn.Linear(7, 4)
    with caplog.at_level(logging.INFO):
        write_report(tmp_path, network, training, data, recipe, ROWS, limit=None)
    lines = [record.message for record in caplog.records]
    assert len(lines) == 1
    assert "report.json" in lines[0]
    assert "RuntimeError" in lines[0]
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["curves.png"]


def test_a_folder_that_cannot_be_made_ends_nothing(tmp_path, caplog):
    (tmp_path / "report").write_text("a file is in the way")
    network, training, data, recipe = opened("classification", tmp_path / "data")
    write_report(tmp_path, network, training, data, recipe, ROWS, limit=None)
    assert "report" in caplog.records[0].message
    assert (tmp_path / "report").read_text() == "a file is in the way"


def test_many_classes_show_the_most_confused():
    counts = np.diag(np.full(50, 90))
    counts[7, 40] = 60
    counts[3, 4] = 10
    shown = figures.most_confused(counts, 4).tolist()
    assert shown == [3, 4, 7, 40]
    names = [f"class {i}" for i in range(50)]
    axis = figures.confusion(counts, names, unit="pictures").axes[0]
    ticks = [tick.get_text() for tick in axis.get_yticklabels()]
    assert len(ticks) == 30
    assert {"class 3", "class 4", "class 7", "class 40"} <= set(ticks)
    assert "of 50 classes" in axis.get_title(loc="left")
    # shares are of all answers, also of those that are not shown
    assert axis.images[0].get_array()[ticks.index("class 7"), ticks.index("class 40")] == 40.0


def test_bars_are_sorted_and_leave_absent_classes_out():
    values = np.array([0.2, np.nan, 0.9, 0.5])
    axis = figures.class_bars(
        values, np.array([1, 0, 2, 3]), ["a", "b", "c", "d"], measure="IoU", unit="pixels"
    ).axes[0]
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["c", "d", "a"]
    assert [bar.get_width() for bar in axis.patches] == [90, 50, 20]
    many = figures.class_bars(
        np.linspace(0, 1, 99), np.ones(99), list(map(str, range(99))), measure="AP50", unit="boxes"
    ).axes[0]
    names = [int(tick.get_text()) for tick in many.get_yticklabels()]
    assert names == [*range(98, 78, -1), *range(19, -1, -1)]


def test_curves_hold_the_rows():
    charts = [
        figures.Curve("loss", {"train": "loss", "val": "val_loss"}, steep=True),
        figures.Curve("top1", {"val": "val_top1"}, best="max"),
    ]
    loss, score = figures.curves(ROWS, charts, title="t").axes
    assert [line.get_xydata().tolist() for line in loss.lines] == [[[0, 3], [1, 2]], [[0, 2]]]
    assert score.lines[0].get_xydata().tolist() == [[0, 10], [1, 30]]
    assert "best 30.00, epoch 1" in score.get_title(loc="right")


def test_a_language_model_shows_its_curves(tmp_path):
    rows = [
        {"epoch": i, "rate": 30.0, "train_perplexity": 900 / (i + 1), "val_perplexity": 800 / 9**i}
        for i in range(3)
    ]
    write_language_report(tmp_path, rows, title="eru")
    with Image.open(tmp_path / "report" / "curves.png") as picture:
        assert np.asarray(picture.convert("L")).min() < 100


def test_one_epoch_and_two_classes_can_be_drawn(tmp_path):
    figure = figures.curves(ROWS[:1], [figures.Curve("loss", {"train": "loss"})], title="$")
    figures.save(figure, tmp_path / "a.png")
    matrix = figures.confusion(np.zeros((2, 2), int), ["$a", "日本"], unit="pixels")
    figures.save(matrix, tmp_path / "b.png")
    for name, values in (("c", [np.nan, np.nan]), ("d", [1.0, np.nan])):
        bars = figures.class_bars(
            np.array(values), np.zeros(2, int), ["a", "b"], measure="F1", unit="pictures"
        )
        figures.save(bars, tmp_path / f"{name}.png")
    assert all((tmp_path / f"{name}.png").stat().st_size > 1000 for name in "abcd")
