"""The .pte says what the train form says, nearly all of it computed by XNNPACK."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from deploy.converted import (
    FAMILIES,
    agreement,
    calibration,
    difference,
    folded,
    job_of,
    made,
    restate,
)
from deploy.lively import lively, parts
from espnetv2.deploy.conversion import Job
from espnetv2.deploy.engines import open_artefact
from espnetv2.deploy.export import export
from espnetv2.deploy.language_step import LanguageStep
from espnetv2.deploy.outputs import DECODED_NAMES, NAMES, with_decoding
from espnetv2.deploy.quiet import quiet
from espnetv2.deploy.subject import Settings
from espnetv2.deploy.verify import drawn_pictures
from espnetv2.errors import UserError
from espnetv2.models.catalog import entry
from espnetv2.weights.load import load_network

with quiet("torch.utils._pytree", native=True):
    pytest.importorskip("executorch", reason="the extra `executorch` is not installed")
    pytest.importorskip("torchao", reason="the extra `executorch` is not installed")
    from espnetv2.deploy import to_executorch
    from espnetv2.deploy.to_executorch import left_over, lower, prepare


@pytest.mark.parametrize(
    "name",
    ["espnetv2_s0_5", *(pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES[1:])],
)
def test_the_static_program_says_what_the_train_form_says(name, tmp_path):
    network, task = lively(entry(name).build()), entry(name).task
    size = (256, 320) if task == "segmentation" else (97, 131)
    job = job_of("executorch", network, task=task, size=size)
    done, engine = made("executorch", job, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == list(done.files)
    assert done.inputs[0].shape == (1, 3, *size)
    assert [port.name for port in done.outputs] == list(NAMES[task])
    assert engine.precision == "fp32"
    assert difference(network, engine, job.inputs[0]) <= 1e-4
    axis = 2 if task == "detection" else 1
    assert agreement(network, engine, job.inputs[0], class_axis=axis) >= 0.9999


def test_a_classifier_is_one_piece_of_xnnpack():
    """Each operation that it cannot do cuts the network in two, with copies between."""
    network = lively(entry("espnetv2_s0_5").build(num_classes=10))
    job = job_of("executorch", network, task="classification", size=(224, 224))
    with quiet("torch.utils._pytree", "root", native=True):
        left = left_over(lower(prepare(job), dynamic=False))
    assert left["delegate"] == 1
    assert not set(left) - {"delegate"}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_one_program_takes_every_size_and_batch(name, tmp_path):
    network, task = lively(entry(name).build()), entry(name).task
    job = job_of("executorch", network, task=task, size=(256, 320), batch=2, dynamic=True)
    done, engine = made("executorch", job, tmp_path)
    assert done.inputs[0].shape == ("batch", 3, "height", "width")
    for batch, size in [(1, (256, 320)), (3, (161, 195)), (2, (320, 256)), (1, (300, 300))]:
        assert difference(network, engine, torch.randn(batch, 3, *size)) <= 1e-4


@pytest.mark.slow
def test_sizes_and_batches_beyond_the_bounds(tmp_path):
    """Sizes are refused in one line; a batch is split."""
    network = lively(entry("espnetv2_s0_5").build(num_classes=10))
    job = job_of("executorch", network, task="classification", batch=2, dynamic=True)
    _, engine = made("executorch", job, tmp_path)
    with pytest.raises(UserError, match=r"takes pictures up to 2048x2048, not 64x2080"):
        engine.run(np.zeros((1, 3, 64, 2080), dtype=np.float32))
    with pytest.raises(UserError, match=r"takes pictures from \d+x\d+, not 1x1"):
        engine.run(np.zeros((1, 3, 1, 1), dtype=np.float32))
    assert difference(network, engine, torch.randn(1, 3, 8, 8)) <= 1e-4
    assert difference(network, engine, torch.randn(11, 3, 64, 64)) <= 1e-4


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_step_of_the_language_model(dynamic, tmp_path):
    network = lively(entry("eru_lm_7m").build(num_classes=99))
    train, deploy = LanguageStep(network), LanguageStep(folded("executorch", network))
    memory = [torch.randn_like(part) for part in train.beginning(2)]
    inputs = (torch.randint(0, 99, (1, 2)), *memory)
    job = Job(deploy.eval(), inputs, deploy.input_names, deploy.output_names, dynamic=dynamic)
    done, engine = made("executorch", job, tmp_path)
    assert [port.name for port in done.inputs] == list(deploy.input_names)
    if dynamic:
        inputs = (torch.randint(0, 99, (1, 5)), *(part.repeat(3, 1)[:5] for part in memory))
    assert difference(train, engine, *inputs) <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("espnetv2_s0_5", (64, 96)),
        ("espnetv2_seg_s0_5", (64, 96)),
        ("espnetv2_ssd300_s0_5", (128, 128)),
    ],
)
def test_decoded_outputs(name, size, tmp_path):
    network, task = lively(entry(name).build()), entry(name).task
    truth, inner = (
        with_decoding(one, task=task, size=size, detector=network).eval()
        for one in (network, folded("executorch", network))
    )
    x = torch.randn(1, 3, *size)
    job = Job(inner, (x,), ("image",), DECODED_NAMES[task])
    done, engine = made("executorch", job, tmp_path)
    with torch.inference_mode():
        expected = parts(truth(x))
    for one, other, port in zip(expected, engine.run(x.numpy()), done.outputs, strict=True):
        assert (port.dtype, port.shape) == (str(other.dtype), other.shape)
        assert np.abs(one.numpy().astype(float) - other).mean() <= 1e-3


@pytest.mark.slow
def test_half_has_float_ports_and_is_not_float(tmp_path):
    network = lively(entry("espnetv2_s0_5").build(num_classes=10))
    job = job_of("executorch", network, task="classification", precision="fp16")
    done, engine = made("executorch", job, tmp_path)
    assert engine.precision == "fp16"
    assert {port.dtype for port in (*done.inputs, *done.outputs)} == {"float32"}
    assert 1e-4 < difference(network, engine, job.inputs[0]) <= 3e-2


@pytest.mark.slow
def test_int8_keeps_the_layers_that_it_is_told_to_in_float(tmp_path):
    loaded, size = load_network("espnetv2_seg_s0_5.camvid"), (96, 128)
    job = job_of("executorch", loaded.network, task="segmentation", size=size, precision="int8")
    job = replace(job, calibration=calibration(loaded, size))
    ranking = to_executorch.rank_layers(job, tmp_path)
    rounded = []
    for count in (0, 3):
        with quiet("torch.utils._pytree", "root", "torchao", native=True):
            program = prepare(replace(job, float_layers=tuple(ranking[:count])))
        rounded.append(_rounded_layers(program))
    assert not rounded[1] & set(ranking[:3])
    assert rounded[0] >= rounded[1]
    assert len(rounded[0]) >= 0.9 * len(ranking)
    _, engine = made("executorch", job, tmp_path)
    assert engine.precision == "int8"
    assert agreement(loaded.network, engine, torch.from_numpy(job.calibration[0])) > 0.9


def _rounded_layers(program):
    """Modules whose convolution is given rounded values."""
    found = set()
    for node in program.graph.nodes:
        if node.op == "call_function" and "conv" in str(node.target):
            source = str(getattr(node.args[0], "target", ""))
            if "dequantize" in source:
                found.add(to_executorch.layer_of(node))
    return found


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A whole artefact of our classifier."""
    folder = tmp_path_factory.mktemp("sound") / "made"
    export(load_network("espnetv2_s0_5.imagenette"), "executorch", folder, Settings(size=(64, 64)))
    return folder


def copy_of(folder, place):
    for path in folder.iterdir():
        (place / path.name).write_bytes(path.read_bytes())
    return place


def test_an_artefact_says_what_was_made(sound):
    artefact = open_artefact(sound, threads=1).artefact
    assert (artefact.computes_in, artefact.agreement) == ("fp32", 1.0)
    assert artefact.difference <= 1e-4
    assert set(artefact.versions) == {"executorch", "torchao", "torch"}
    assert artefact.bytes == (sound / "model.pte").stat().st_size


def test_a_file_that_ends_early_is_one_line(sound, tmp_path):
    file = copy_of(sound, tmp_path) / "model.pte"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"the files have \d+ bytes, but export.json says"):
        open_artefact(tmp_path)


@pytest.mark.parametrize(
    "ruin",
    [
        lambda old: b"x" * len(old),
        lambda old: old[:4] + b"ET99" + old[8:],  # the mark of another version of the format
    ],
    ids=["rubbish", "another version"],
)
def test_a_damaged_file_is_one_line(ruin, sound, tmp_path):
    file = copy_of(sound, tmp_path) / "model.pte"
    file.write_bytes(ruin(file.read_bytes()))
    restate(tmp_path)  # as if it had been written so
    with pytest.raises(UserError, match=r"is damaged \(.*\); export again") as told:
        open_artefact(tmp_path)
    assert "\n" not in str(told.value)


def test_another_size_is_one_line(sound):
    with pytest.raises(UserError, match="takes pictures of 64x64, not 96x64; export it with"):
        open_artefact(sound, threads=1)(torch.zeros(1, 3, 96, 64))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("espnetv2_seg_s0_5.camvid", marks=pytest.mark.slow),
        "espnetv2_s0_5.imagenette",
    ],
)
def test_shipped_weights_on_pictures(name, tmp_path):
    loaded = load_network(name)
    size = (256, 320) if loaded.task == "segmentation" else (128, 128)
    spec = loaded.preprocessing.resized(size)
    job = job_of("executorch", loaded.network, task=loaded.task, size=size)
    _, engine = made("executorch", job, tmp_path)
    for picture in drawn_pictures(2, size):
        assert difference(loaded.network, engine, spec(picture)[None]) <= 1e-4
        assert agreement(loaded.network, engine, spec(picture)[None]) >= 0.9999
