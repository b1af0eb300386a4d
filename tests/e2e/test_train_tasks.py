"""One command trains each task on real data; what it leaves behind can be used at once."""

import json
import subprocess
import sys

import pytest

import tiny_sets
from espnetv2.weights.files import read_safetensors

CASES = {
    # recipe: (folder of real data, what keeps it small, score that must be there)
    "camvid": ("camvid", ["stages=[]", "data.size=[64,96]"], "miou"),
    "imagenette": ("imagenette128", ["data.size=[64,64]"], "top1"),
    "bccd": ("bccd", ["data.size=[128,128]"], "ap50"),
    "coco256-multilabel": ("coco256", ["data.size=[64,64]"], "f1_overall"),
    "ptb": ("ptb", [], "val_perplexity"),
}


def espnetv2(*words, cwd):
    done = subprocess.run(
        [sys.executable, "-m", "espnetv2", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def text(root):
    root.mkdir(parents=True, exist_ok=True)
    words = " ".join(f"w{i % 17}" for i in range(40))
    for split in ("train", "valid", "test"):
        (root / f"{split}.txt").write_text(f"{words}\n" * 60)


def tags(root):
    tiny_sets.imagefolder(root)
    for split in ("train", "val"):
        rows = [(f"{split}/cat/0.png", "cat"), (f"{split}/dog/0.png", "dog|cat")]
        tiny_sets.table(root, rows, name=f"{split}.csv")


OWN = {
    # recipe for people's own data: (a folder as the README draws it, score that must be there)
    "classify": (tiny_sets.imagefolder, "top1"),
    "multilabel": (tags, "f1_overall"),
    "segment": (tiny_sets.masks, "miou"),
    "detect": (tiny_sets.voc_boxes, "ap50"),
    "language": (text, "val_perplexity"),
}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("recipe", OWN)
def test_own_data_in_one_command(recipe, tmp_path):
    make, score = OWN[recipe]
    make(tmp_path / "data")
    small = ("--limit", "1", "--set", "epochs=1", "--set", "data.size=[64,64]")
    where = ("--data", "data", "--out", "run", "--device", "cpu", "--threads", "1")
    printed = espnetv2("train", recipe, *where, *small, "--json", cwd=tmp_path)
    assert score in json.loads(printed)["metrics"]
    weights = tmp_path / "run" / "model.safetensors"
    assert read_safetensors(weights)[1].multi_label == (recipe == "multilabel")


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("recipe", CASES)
def test_real_data_in_one_command(recipe, shared, tmp_path):
    folder, changes, score = CASES[recipe]
    sets = [word for change in ["epochs=1", *changes] for word in ("--set", change)]
    where = ("--data", shared / "data" / folder, "--out", tmp_path / "run", "--device", "cpu")
    text = espnetv2("train", recipe, *where, "--limit", "2", *sets, "--json", cwd=tmp_path)
    summary = json.loads(text)
    assert score in summary["metrics"]
    assert (tmp_path / "run" / "model.safetensors").is_file()
    assert list((tmp_path / "run").rglob("last.ckpt"))  # of the run, or of its stages


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_was_trained_predicts_and_is_judged(camvid):
    recipe = str(camvid / "tiny.yaml")
    where = ("--data", camvid / "data", "--out", camvid / "run", "--device", "cpu")
    espnetv2("train", recipe, *where, "--set", "epochs=1", cwd=camvid)
    weights = camvid / "run" / "model.safetensors"
    picture = camvid / "data" / "images" / "val" / "0.png"
    answer = json.loads(espnetv2("predict", weights, picture, "--out", "out", "--json", cwd=camvid))
    assert answer["results"][0]["shares"]
    judged = ("--dataset", "camvid", "--data", camvid / "data", "--split", "val", "--json")
    scores = json.loads(espnetv2("eval", weights, *judged, cwd=camvid))
    assert {row["protocol"] for row in scores["scores"]} == {"void-counted", "void-ignored"}
    more = ("--weights", weights, "--data", camvid / "data", "--out", camvid / "more")
    espnetv2("train", recipe, *more, "--set", "epochs=1", "--device", "cpu", cwd=camvid)


MISTAKES = [
    (["camvd"], "did you mean camvid"),
    (["camvid", "--set", "optimizer.momentun=1"], "optimizer.momentum"),
    (["camvid", "--data", "none"], "is not a folder"),
    (["camvid", "--data", "."], "camvid"),
]


@pytest.mark.parametrize(("words", "message"), MISTAKES)
def test_mistakes_are_one_line_and_leave_nothing(words, message, tmp_path):
    if "--data" not in words:
        words = [*words, "--data", "."]
    done = subprocess.run(
        [sys.executable, "-m", "espnetv2", "train", *words, "--out", "run"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr
    assert not (tmp_path / "run" / "summary.json").exists()
