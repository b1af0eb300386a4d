"""Every example runs as its own process, on real or generated data; so does the notebook."""

import csv
import os
import re
import subprocess
import sys

import pytest
import torch
from PIL import Image

import tiny_sets
from docs.commands import ROOT
from espnetv2.data.preprocess import CONVENTIONS
from espnetv2.models.catalog import entry
from espnetv2.weights.files import Header, write_safetensors

EXAMPLES = ROOT / "examples"
SCRIPTS = sorted(path.stem for path in EXAMPLES.glob("*.py"))


def run(name, *words, cwd):
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def written(path, model, classes, **options):
    """A weights file of a fresh network."""
    torch.manual_seed(0)
    network = entry(model).build(num_classes=len(classes) + (entry(model).task == "detection"))
    convention = CONVENTIONS["edgenets-detection"]
    header = Header(
        model=model,
        options={"num_classes": len(classes) + (entry(model).task == "detection")} | options,
        classes=classes,
        palette=None,
        preprocessing=convention.resized((300, 300)).to_json(),
        source={"name": model},
    )
    write_safetensors(network.state_dict(), header, path)
    return path


def test_six_scripts_are_short_and_say_how_to_call_them():
    assert len(SCRIPTS) == 6
    for name in SCRIPTS:
        text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 60, name
        assert f"python examples/{name}.py" in text
        assert f"test_{name}" in globals(), f"nothing runs {name}"


def test_classify_folder(tmp_path):
    said = run("classify_folder", EXAMPLES / "pictures", cwd=tmp_path)
    assert said.startswith("3 pictures")
    with (tmp_path / "answers.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["path"].rpartition("/")[2] for row in rows] == [
        "astronaut.jpg",
        "cat.jpg",
        "street.jpg",
    ]
    for row in rows:
        assert 0 < float(row["score"]) <= 1
        assert row["label"] != row["second"]


@pytest.mark.slow
def test_finetune_segmenter(tmp_path):
    data = tiny_sets.masks(tmp_path / "scenes", count=8)
    said = run("finetune_segmenter", data, "--epochs", 1, "--size", 64, cwd=tmp_path)
    assert "0.png: {" in said
    assert (tmp_path / "runs/scenes/model.safetensors").is_file()
    with Image.open(tmp_path / "runs/scenes/first.jpg") as drawn:
        assert drawn.size == (48, 40)


def test_detect_in_clip(tmp_path, clip):
    weights = written(tmp_path / "w.safetensors", "espnetv2_ssd300_s0_5", ("cup", "pen"))
    said = run("detect_in_clip", weights, clip, "--frames", 3, "--score", 0.01, cwd=tmp_path)
    assert re.search(r"^(cup|pen): 0\.\d s$", said, re.MULTILINE)
    assert "3 frames" in said
    from espnetv2.predict.video import VideoReader

    with VideoReader(str(tmp_path / "boxes.mp4")) as reader:
        assert len(list(reader)) == 3


@pytest.fixture
def clip(tmp_path):
    """Five frames of noise."""
    pytest.importorskip("av", reason="the extra `video` is not installed")
    from fractions import Fraction

    from espnetv2.predict.video import VideoWriter

    with VideoWriter(tmp_path / "clip.mp4", rate=Fraction(10)) as writer:
        for seed in range(5):
            path = tiny_sets.picture(tmp_path / "frame.png", size=(96, 64), seed=seed)
            writer.write(Image.open(path).convert("RGB"))
    return tmp_path / "clip.mp4"


@pytest.mark.slow
def test_train_classifier(tmp_path):
    data = tiny_sets.imagefolder(tmp_path / "data", each=4)
    said = run("train_classifier", data, "--epochs", 2, "--size", 32, cwd=tmp_path)
    found = re.findall(r"epoch (\d): loss (\d+\.\d+), top-1 (\d+\.\d)", said)
    assert [epoch for epoch, _, _ in found] == ["1", "2"]
    assert float(found[1][1]) != float(found[0][1])


@pytest.mark.slow
def test_compare_engines(tmp_path):
    pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
    pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    said = run("compare_engines", "--to", "onnx", "--size", "64x96", cwd=tmp_path)
    gap = re.search(r"^onnx +\d+\.\d+ ms, off by (\S+), \d\.\d MB$", said, re.MULTILINE)
    assert 0 < float(gap[1]) < 1e-3
    assert not list(tmp_path.iterdir())


def test_sample_language(tmp_path):
    words = ("<unk>", "<eos>", "the", "cat", "sat")
    weights = written(tmp_path / "w.safetensors", "eru_lm_7m", words)
    one = run("sample_language", weights, "--words", 12, "--seed", 1, cwd=tmp_path)
    other = run("sample_language", weights, "--words", 12, "--seed", 2, cwd=tmp_path)
    assert one.startswith("the ")
    assert one != other
    assert set(re.findall(r"\w+", one)) <= {"the", "cat", "sat"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_notebook():
    nbformat = pytest.importorskip("nbformat", reason="nbclient is not installed")
    from nbclient import NotebookClient

    notebook = nbformat.read(EXAMPLES / "tour.ipynb", as_version=4)
    for cell in notebook.cells:  # as it is committed
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
    resources = {"metadata": {"path": str(EXAMPLES)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs for cell in code)
    assert "image/png" in code[1].outputs[-1].data
