"""The IR says what the train form says, in OpenVINO and in the precision that was asked for."""

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
from espnetv2.deploy.blocks import with_prelu
from espnetv2.deploy.conversion import Job
from espnetv2.deploy.engines import open_artefact
from espnetv2.deploy.export import export
from espnetv2.deploy.forms import TwoSlopes
from espnetv2.deploy.language_step import LanguageStep
from espnetv2.deploy.outputs import DECODED_NAMES, NAMES, with_decoding
from espnetv2.deploy.subject import Settings
from espnetv2.deploy.verify import drawn_pictures
from espnetv2.errors import UserError
from espnetv2.models.catalog import entry
from espnetv2.weights.load import load_network

openvino = pytest.importorskip("openvino", reason="the extra `openvino` is not installed")

from espnetv2.deploy import to_openvino  # noqa: E402

ABLE = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
"""Of this processor."""


def kinds(folder):
    model = openvino.Core().read_model(folder / "model.xml")
    return {operation.get_type_name() for operation in model.get_ops()}


@pytest.mark.parametrize(
    "name",
    ["espnetv2_s0_5", *(pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES[1:])],
)
def test_the_static_model_says_what_the_train_form_says(name, tmp_path):
    network, task = lively(entry(name).build()), entry(name).task
    size = (256, 320) if task == "segmentation" else (97, 131)
    job = job_of("openvino", network, task=task, size=size)
    done, engine = made("openvino", job, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(done.files)
    assert done.inputs[0].shape == (1, 3, *size)
    assert [port.name for port in done.outputs] == list(NAMES[task])
    assert engine.precision == "fp32"
    assert difference(network, engine, job.inputs[0]) <= 1e-4
    axis = 2 if task == "detection" else 1
    assert agreement(network, engine, job.inputs[0], class_axis=axis) >= 0.9999
    assert not kinds(tmp_path) & {"Select", "BatchNormInference", "Loop", "If"}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_one_model_takes_every_size_and_batch(name, tmp_path):
    network, task = lively(entry(name).build()), entry(name).task
    # an example is what `espnetv2 export --dynamic` gives: two drawn pictures
    job = job_of("openvino", network, task=task, size=(256, 320), batch=2, dynamic=True)
    done, engine = made("openvino", job, tmp_path)
    assert done.inputs[0].shape == ("batch", 3, "height", "width")
    for batch, size in [(1, (256, 320)), (3, (161, 195)), (2, (320, 256)), (1, (300, 300))]:
        assert difference(network, engine, torch.randn(batch, 3, *size)) <= 1e-4


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_step_of_the_language_model(dynamic, tmp_path):
    network = lively(entry("eru_lm_7m").build(num_classes=99))
    train, deploy = LanguageStep(network), LanguageStep(folded("openvino", network))
    memory = [torch.randn_like(part) for part in train.beginning(2)]
    inputs = (torch.randint(0, 99, (1, 2)), *memory)
    job = Job(deploy.eval(), inputs, deploy.input_names, deploy.output_names, dynamic=dynamic)
    done, engine = made("openvino", job, tmp_path)
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
        for one in (network, folded("openvino", network))
    )
    x = torch.randn(1, 3, *size)
    done, engine = made("openvino", Job(inner, (x,), ("image",), DECODED_NAMES[task]), tmp_path)
    with torch.inference_mode():
        expected = parts(truth(x))
    for one, other, port in zip(expected, engine.run(x.numpy()), done.outputs, strict=True):
        assert (port.dtype, port.shape) == (str(other.dtype), other.shape)
        assert np.abs(one.numpy().astype(float) - other).mean() <= 1e-3


@pytest.fixture(scope="module")
def small():
    return lively(entry("espnetv2_s0_5").build(num_classes=10))


@pytest.mark.skipif("BF16" not in ABLE, reason="this processor has no bf16")
def test_fp32_is_asked_for_where_openvino_would_take_bf16(small, tmp_path):
    job = job_of("openvino", small, task="classification")
    _, engine = made("openvino", job, tmp_path)
    left_alone = openvino.Core().compile_model(tmp_path / "model.xml", "CPU")
    x = job.inputs[0]
    with torch.inference_mode():
        truth = small(x).numpy()
    loose = np.abs(left_alone(x.numpy())[0] - truth).max() / np.abs(truth).max()
    assert engine.precision == "fp32"
    assert 100 * difference(small, engine, x) < loose


@pytest.mark.parametrize(("precision", "needed"), [("bf16", "BF16"), ("fp16", "FP16")])
def test_the_precision_used_is_reported(precision, needed, small, tmp_path):
    job = job_of("openvino", small, task="classification", precision=precision)
    done, engine = made("openvino", job, tmp_path)
    assert engine.precision == (precision if needed in ABLE else "fp32")
    assert {port.dtype for port in (*done.inputs, *done.outputs)} == {"float32"}
    assert difference(small, engine, job.inputs[0]) <= (3e-2 if precision == "fp16" else 0.15)


@pytest.mark.slow
def test_half_is_stored_in_half_of_the_bytes(small, tmp_path):
    sizes = {}
    for precision in ("fp32", "fp16"):
        (tmp_path / precision).mkdir()
        job = job_of("openvino", small, task="classification", precision=precision)
        made("openvino", job, tmp_path / precision)
        sizes[precision] = (tmp_path / precision / "model.bin").stat().st_size
    assert sizes["fp16"] < 0.55 * sizes["fp32"]


@pytest.mark.slow
def test_int8_keeps_the_layers_that_it_is_told_to_in_float(tmp_path):
    pytest.importorskip("nncf", reason="the extra `openvino` is not installed")
    loaded, size = load_network("espnetv2_seg_s0_5.camvid"), (96, 128)
    job = job_of("openvino", loaded.network, task="segmentation", size=size, precision="int8")
    job = replace(job, calibration=calibration(loaded, size))
    ranking = to_openvino.rank_layers(job, tmp_path)
    rounded = []
    for count in (0, 3):
        folder = tmp_path / str(count)
        folder.mkdir()
        _, engine = made("openvino", replace(job, float_layers=tuple(ranking[:count])), folder)
        assert engine.precision == "int8"
        rounded.append(_rounded_layers(folder))
        x = torch.from_numpy(job.calibration[0])
        assert agreement(loaded.network, engine, x) > 0.9
    assert rounded[0] - rounded[1] >= {one for one in ranking[:3] if one in rounded[0]}
    assert not rounded[1] & set(ranking[:3])
    assert len(rounded[1]) > len(ranking) / 2


def _rounded_layers(folder):
    """Names of the layers that are given rounded values."""
    model, found = openvino.Core().read_model(folder / "model.xml"), set()
    for operation in model.get_ops():
        if operation.get_type_name() in to_openvino._KINDS:
            source = operation.input_value(0).get_node().get_type_name()
            if source == "FakeQuantize":
                found.add(operation.get_friendly_name())
    return found


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A whole artefact of our classifier."""
    folder = tmp_path_factory.mktemp("sound") / "made"
    export(load_network("espnetv2_s0_5.imagenette"), "openvino", folder, Settings(size=(64, 64)))
    return folder


def copy_of(folder, place):
    for path in folder.iterdir():
        (place / path.name).write_bytes(path.read_bytes())
    return place


def test_an_artefact_says_what_was_made(sound):
    artefact = open_artefact(sound, threads=1).artefact
    assert (artefact.computes_in, artefact.agreement) == ("fp32", 1.0)
    assert artefact.difference <= 1e-4
    assert set(artefact.versions) == {"openvino", "torch"}
    assert artefact.bytes == sum((sound / name).stat().st_size for name in artefact.files)


@pytest.mark.parametrize("name", ["model.xml", "model.bin"])
def test_a_file_that_ends_early_is_one_line(name, sound, tmp_path):
    file = copy_of(sound, tmp_path) / name
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"the files have \d+ bytes, but export.json says"):
        open_artefact(tmp_path)


@pytest.mark.parametrize(
    ("name", "ruin"),
    [
        ("model.xml", lambda old: b"x" * len(old)),
        ("model.xml", lambda old: old.replace(b'version="11"', b'version="99"')),
        ("model.xml", lambda old: old[: len(old) // 2] + b" " * (len(old) - len(old) // 2)),
    ],
    ids=["rubbish", "another version", "half of it"],
)
def test_a_damaged_file_is_one_line(name, ruin, sound, tmp_path):
    file = copy_of(sound, tmp_path) / name
    file.write_bytes(ruin(file.read_bytes()))
    restate(tmp_path)  # as if it had been written so
    with pytest.raises(UserError, match=r"OpenVINO cannot read it \(.*\); export again") as told:
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
    job = job_of("openvino", loaded.network, task=loaded.task, size=size)
    _, engine = made("openvino", job, tmp_path)
    for picture in drawn_pictures(2, size):
        assert difference(loaded.network, engine, spec(picture)[None]) <= 1e-4
        assert agreement(loaded.network, engine, spec(picture)[None]) >= 0.9999


def test_prelus_are_left_and_change_nothing():
    """A norm of negative scale makes the activation behind it no PReLU, until that is moved."""
    network = lively(entry("espnetv2_s0_5").build(num_classes=10))
    before = folded("openvino", network)
    assert not all(one.plain for one in before.modules() if isinstance(one, TwoSlopes))
    kept = {key: value.clone() for key, value in before.state_dict().items()}
    x = torch.randn(1, 3, 97, 131)
    for move in (True, False):
        changed = with_prelu(before, move=move)
        slopes = [one for one in changed.modules() if isinstance(one, TwoSlopes)]
        assert all(one.plain for one in slopes) == move
        with torch.inference_mode():
            truth, found = network(x), changed(x)
        assert (truth - found).abs().max() <= 1e-5 * truth.abs().max()
    assert all(torch.equal(value, kept[key]) for key, value in before.state_dict().items())


def test_a_slope_of_zero_stays_where_it_is():
    """A rise of 0 is not divided by."""
    network = lively(entry("espnetv2_s0_5").build(num_classes=10))
    unit = network.backbone.stages[2].units[1]
    unit.fuse.act.weight.data[3] = 0.0
    unit.fuse.norm.weight.data[3] = -1.0
    changed = with_prelu(folded("openvino", network))
    assert not changed.backbone.stages[2].units[1].fuse.act.plain
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        truth, found = network(x), changed(x)
    assert (truth - found).abs().max() <= 1e-5 * truth.abs().max()
