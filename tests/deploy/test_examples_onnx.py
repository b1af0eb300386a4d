"""The two examples run every task's artefact and prepare pictures as training does."""

import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from deploy.lively import lively
from espnetv2.data.pictures import open_picture
from espnetv2.data.preprocess import CONVENTIONS, Preprocessing
from espnetv2.deploy.artefact import (
    Artefact,
    Port,
    hashes_of,
    read_artefact,
    size_of,
    write_artefact,
)
from espnetv2.deploy.conversion import Job
from espnetv2.deploy.engines import open_artefact
from espnetv2.deploy.fold import fold
from espnetv2.deploy.forms import Normalize
from espnetv2.deploy.outputs import DECODED_NAMES, with_decoding
from espnetv2.deploy.targets import TARGETS
from espnetv2.models.catalog import entry
from espnetv2.weights.load import load_network

pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
pytest.importorskip("onnxscript", reason="the extra `onnx` is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")

ROOT = pathlib.Path(__file__).resolve().parents[2]
PYTHON, CPP = ROOT / "examples/onnx_python", ROOT / "examples/onnx_cpp"
STREET = ROOT / "examples/pictures/street.jpg"


def street():
    return open_picture(STREET)


def make_artefact(folder, network, *, model, task, size, classes, spec, takes="input", **facts):
    from espnetv2.deploy import to_onnx

    folder.mkdir()
    spec = spec.resized(size)
    train = with_decoding(network, task=task, size=size, detector=network).eval()
    inner = fold(network, **TARGETS["onnx"].fold)
    example = torch.zeros(1, 3, *size)
    if takes == "pixels":
        inner, example = torch.nn.Sequential(Normalize(spec), inner), example.byte()
    deploy = with_decoding(inner, task=task, size=size, detector=network)
    done = to_onnx.convert(Job(deploy, (example,), ("image",), DECODED_NAMES[task]), folder)
    artefact = Artefact(
        target="onnx",
        folder=folder,
        files=done.files,
        model=model,
        task=task,
        classes=classes,
        palette=None,
        preprocessing=spec.to_json(),
        options={},
        precision="fp32",
        takes=takes,
        gives="decoded",
        inputs=done.inputs,
        outputs=done.outputs,
        dynamic=False,
        bytes=size_of(folder, done.files),
        sha256=hashes_of(folder, done.files),
        **facts,
    )
    write_artefact(artefact)
    return train


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    loaded = load_network("espnetv2_s0_5.imagenette")
    folder = tmp_path_factory.mktemp("classifier") / "exported"
    train = make_artefact(
        folder,
        loaded.network,
        model="espnetv2_s0_5",
        task="classification",
        size=(128, 128),
        classes=loaded.classes,
        spec=loaded.preprocessing,
    )
    return folder, train


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    loaded = load_network("espnetv2_seg_s0_5.camvid")
    folder = tmp_path_factory.mktemp("segmenter") / "exported"
    train = make_artefact(
        folder,
        loaded.network,
        model="espnetv2_seg_s0_5",
        task="segmentation",
        size=(96, 128),
        classes=loaded.classes,
        spec=loaded.preprocessing,
        takes="pixels",
    )
    return folder, train


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("detector") / "exported"
    train = make_artefact(
        folder,
        lively(entry("espnetv2_ssd300_s0_5").build(num_classes=4)),
        model="espnetv2_ssd300_s0_5",
        task="detection",
        size=(128, 128),
        classes=("left", "middle", "right"),
        spec=CONVENTIONS["edgenets-detection"],
    )
    return folder, train


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("onnx_python_example", PYTHON / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The C++ example, built against the library of the Python package."""
    if shutil.which("cmake") is None:
        pytest.skip("no cmake here")
    kept = ROOT / "build" / "onnxruntime"  # the headers are fetched once for all runs
    found = run([sys.executable, CPP / "find_onnxruntime.py", kept])
    if found.returncode:
        pytest.skip(f"no C++ headers of ONNX Runtime here: {found.stderr.strip()}")
    build = tmp_path_factory.mktemp("build")
    for command in (
        ["cmake", "-S", CPP, "-B", build, *found.stdout.split()],
        ["cmake", "--build", build],
    ):
        done = run(command)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "warning" not in done.stdout + done.stderr
    return build / "run_onnx"


def run(command):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


def run_program(program, *arguments, cwd):
    command = [str(program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def run_python(*arguments, cwd):
    """Without torch: importing it would fail."""
    (cwd / "torch.py").write_text("raise ImportError('the example needs no torch')\n")
    done = subprocess.run(
        [sys.executable, PYTHON / "run.py", *map(str, arguments), "--threads", "1"],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(cwd)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def truth_of(folder, train):
    """What the train form says about the street, as numpy."""
    artefact = read_artefact(folder)
    spec = artefact.preprocess()
    image = street()
    with torch.inference_mode():
        x = spec.pixels(image) if artefact.takes == "pixels" else spec(image)
        if artefact.takes == "pixels":
            x = spec.normalize(x) / spec.divisor
        found = train(x[None])
    return [one[0].numpy() for one in ((found,) if torch.is_tensor(found) else found)]


def test_the_python_example_classifies(classifier, tmp_path):
    lines = run_python(classifier[0], STREET, cwd=tmp_path)
    check_classes(lines, *classifier)


def test_the_python_example_segments(segmenter, tmp_path):
    lines = run_python(segmenter[0], STREET, "--out", tmp_path / "mask.png", cwd=tmp_path)
    check_shares(lines[:-1], *segmenter)
    with Image.open(tmp_path / "mask.png") as mask:
        assert mask.size == street().size


def test_the_python_example_detects(detector, tmp_path):
    check_boxes(run_python(detector[0], STREET, cwd=tmp_path), *detector)


def test_the_cpp_example_does_the_same(program, classifier, segmenter, detector, tmp_path):
    picture = tmp_path / "street.ppm"
    street().save(picture)
    check_classes(run_program(program, classifier[0], picture, 1, cwd=tmp_path), *classifier)
    check_shares(run_program(program, segmenter[0], picture, 1, cwd=tmp_path), *segmenter)
    with Image.open(tmp_path / "mask.pgm") as mask:
        assert mask.size == (128, 96)
    check_boxes(run_program(program, detector[0], picture, 1, cwd=tmp_path), *detector)
    missing = subprocess.run([program, tmp_path, picture], capture_output=True, text=True)
    assert (missing.returncode, missing.stderr.count("\n")) == (1, 1)


def check_classes(lines, folder, train):
    probabilities, names = truth_of(folder, train)[0], read_artefact(folder).classes
    best = probabilities.argsort()[::-1][:5]
    assert [line.partition(" ")[2] for line in lines] == [names[place] for place in best]
    for line, place in zip(lines, best, strict=True):
        assert float(line.partition(" ")[0]) == pytest.approx(probabilities[place], abs=0.01)


def check_shares(lines, folder, train):
    mask, names = truth_of(folder, train)[0], read_artefact(folder).classes
    shares = dict.fromkeys(names, 0.0)
    shares |= {text.partition(" ")[2]: float(text.partition(" ")[0]) for text in lines}
    for place, name in enumerate(names):
        assert shares[name] == pytest.approx((mask == place).mean(), abs=0.01)


def check_boxes(lines, folder, train):
    boxes, scores, labels = truth_of(folder, train)
    names, size = read_artefact(folder).classes, street().size
    sure = scores >= 0.3
    assert abs(len(lines) - int(sure.sum())) <= 0.05 * sure.sum()  # scores near the threshold
    score, name, *corners = lines[0].split()
    assert float(score) == pytest.approx(scores[0], abs=0.01)
    assert name == names[labels[0]]
    expected = boxes[0] * np.array([*size, *size])
    assert [float(one) for one in corners] == pytest.approx(expected, abs=0.02 * max(size))


SPECS = {
    **{name: spec.resized((97, 131)) for name, spec in CONVENTIONS.items()},
    "larger": Preprocessing(size=(700, 900)),
    "middle, larger": Preprocessing(size=(611, 480), fit="center"),
    "its own size": Preprocessing(),
}
"""Shrinking, growing, stretching and cropping."""


def facts_for(spec, *, takes):
    height, width = spec.size or ("height", "width")
    kind = "uint8" if takes == "pixels" else "float32"
    return Artefact(
        target="onnx",
        folder=pathlib.Path(),
        files=("model.onnx",),
        model="m",
        task="classification",
        classes=("a",),
        palette=None,
        preprocessing=spec.to_json(),
        options={},
        precision="fp32",
        takes=takes,
        gives="decoded",
        inputs=(Port("image", (1, 3, height, width), kind),),
        outputs=(Port("probabilities", (1, 1)),),
        dynamic=False,
    )


def grey_levels(found, image, spec, *, takes):
    """Largest difference of an input to training's, in grey levels of the picture."""
    if takes == "pixels":
        return np.abs(found[0].astype(int) - spec.pixels(image).numpy().astype(int)).max()
    std = np.array(spec.std)[:, None, None] * spec.unit * spec.divisor
    return (np.abs(found[0] - spec(image).numpy()) * std).max()


@pytest.mark.parametrize("takes", ["input", "pixels"])
@pytest.mark.parametrize("name", SPECS)
def test_the_python_example_prepares_pictures_as_training_does(name, takes, example, tmp_path):
    image, spec = street(), SPECS[name]
    facts = facts_of(facts_for(spec, takes=takes), tmp_path)
    found = example.prepare(image, facts)
    assert found.dtype == facts["inputs"][0]["dtype"]
    assert grey_levels(found, image, spec, takes=takes) <= 1.01


@pytest.mark.parametrize("name", SPECS)
def test_the_cpp_example_prepares_pictures_as_training_does(name, program, classifier, tmp_path):
    """The network of another size then refuses, which is not looked at here."""
    image, spec = street(), SPECS[name]
    facts_of(facts_for(spec, takes="input"), tmp_path)
    shutil.copy(classifier[0] / "model.onnx", tmp_path)
    image.save(tmp_path / "street.ppm")
    arguments = (tmp_path, tmp_path / "street.ppm", "1", tmp_path / "input.bin")
    subprocess.run([program, *arguments], capture_output=True, check=False)
    height, width = spec.size or (image.height, image.width)
    found = np.fromfile(tmp_path / "input.bin", dtype=np.float32).reshape(1, 3, height, width)
    assert grey_levels(found, image, spec, takes="input") <= 1.01


def facts_of(artefact, folder):
    import json
    from dataclasses import replace

    write_artefact(replace(artefact, folder=folder))
    return json.loads((folder / "export.json").read_text(encoding="utf-8"))


def test_the_engine_runs_what_the_examples_run(segmenter):
    folder, train = segmenter
    artefact = read_artefact(folder)
    pixels = artefact.preprocess().pixels(street())
    mask = open_artefact(folder, threads=1).run(pixels[None].numpy())[0][0]
    assert (mask == truth_of(folder, train)[0]).mean() >= 0.9999
