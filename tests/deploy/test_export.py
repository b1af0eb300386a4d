"""Exporting by way of a made-up runtime: what is compared, refused, replaced and left alone."""

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from espnetv2.data.preprocess import CONVENTIONS
from espnetv2.deploy import targets
from espnetv2.deploy.artefact import Port, read_artefact
from espnetv2.deploy.conversion import Converted
from espnetv2.deploy.engines import Engine, open_artefact
from espnetv2.deploy.export import export
from espnetv2.deploy.gate import Gate, Judge, parse_gate
from espnetv2.deploy.lively import make_lively
from espnetv2.deploy.opening import load_engine
from espnetv2.deploy.subject import Settings
from espnetv2.deploy.targets import EngineRow, Target
from espnetv2.deploy.verify import drawn_pictures
from espnetv2.errors import UserError
from espnetv2.models.catalog import entry
from espnetv2.predict.predictor import load
from espnetv2.weights.files import Header, write_safetensors
from espnetv2.weights.load import Loaded, load_network

LAYERS = [f"layer{i}" for i in range(10)]


class Wobbly(Engine):
    """Runs what was pickled; int8 moves logits until the worst layers are left in float."""

    name = "wobbly"

    def __init__(self, artefact, *, threads):
        self.artefact, self.threads, self.precision = artefact, threads, artefact.precision
        self.network = torch.load(artefact.path, weights_only=False)

    def run(self, *inputs):
        assert inputs[0].shape[1:] == tuple(self.artefact.inputs[0].shape[1:])
        assert str(inputs[0].dtype) == self.artefact.inputs[0].dtype
        with torch.inference_mode():
            outputs = self.network(torch.from_numpy(inputs[0]))
        parts = (outputs,) if isinstance(outputs, torch.Tensor) else outputs
        wrong = Wobbly.off and len(self.artefact.float_layers) < Wobbly.needed
        return tuple(part.numpy() * 0 if wrong else part.numpy() for part in parts)

    off, needed = False, 0


def convert(job, folder):
    torch.save(job.network, folder / "model.pt")
    with torch.inference_mode():
        outputs = job.network(*job.inputs)
    parts = (outputs,) if isinstance(outputs, torch.Tensor) else outputs
    kinds = [str(one.dtype).removeprefix("torch.") for one in (*job.inputs, *parts)]
    return Converted(
        ("model.pt",),
        tuple(map(Port, job.input_names, (tuple(job.inputs[0].shape),), kinds)),
        tuple(map(Port, job.output_names, (tuple(p.shape) for p in parts), kinds[1:])),
    )


@pytest.fixture(autouse=True)
def wobbly(monkeypatch):
    module = ModuleType("espnetv2.deploy.to_wobbly")
    module.convert, module.rank_layers = convert, lambda job, folder: LAYERS
    module.Wobbly = Wobbly
    monkeypatch.setitem(sys.modules, module.__name__, module)
    row = Target("to_wobbly", "none", (), "wobbly", ("fp32", "int8"), False)
    monkeypatch.setitem(targets.TARGETS, "wobbly", row)
    monkeypatch.setitem(targets.ENGINES, "wobbly", EngineRow("to_wobbly", "Wobbly", "wobbly"))
    monkeypatch.setattr(Wobbly, "off", False)
    monkeypatch.setattr(Wobbly, "needed", 0)


@pytest.fixture(scope="module")
def ours():
    return load_network("espnetv2_s0_5.imagenette")


def test_an_artefact_is_compared_and_says_so(ours, tmp_path):
    made = export(ours, "wobbly", tmp_path / "out", Settings(size=(64, 48)))
    read = read_artefact(tmp_path / "out")
    assert read.difference == made.difference < 1e-5
    assert read.agreement == 1.0
    assert read.verified == "4 drawn pictures in wobbly"
    assert (read.size, read.classes, read.task) == ((64, 48), ours.classes, "classification")
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]  # no scratch folder is left


def test_a_broken_artefact_is_not_written_and_the_old_one_stays(ours, tmp_path):
    export(ours, "wobbly", tmp_path / "out", Settings(size=(64, 48)))
    before = (tmp_path / "out" / "export.json").read_bytes()
    Wobbly.off, Wobbly.needed = True, 1
    with pytest.raises(UserError, match=r"differs from the network by 1.0e.00 of its largest"):
        export(ours, "wobbly", tmp_path / "out", Settings(size=(64, 48)))
    assert (tmp_path / "out" / "export.json").read_bytes() == before
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


@pytest.fixture
def scored(monkeypatch):
    """Makes int8 lose 40 points of a score until so many of its layers are in float."""

    def set_needed(needed):
        def score(gate, network, **others):
            if not isinstance(network, Engine):
                return 90.0
            return 89.8 if len(network.artefact.float_layers) >= needed else 50.0

        monkeypatch.setattr(Gate, "score", score)

    return set_needed


def behind_a_gate(precision="int8", **more):
    gate = Gate("top1", 0.5, Judge("imagefolder", Path("pictures")))
    given = drawn_pictures(2, (64, 64))
    return Settings(precision=precision, size=(64, 64), calibration=given, gate=gate, **more)


@pytest.mark.parametrize(("needed", "left"), [(0, 0), (1, 1), (3, 4)])
@pytest.mark.parametrize("gives", ["raw", "decoded"])
def test_the_gate_leaves_the_worst_layers_in_float_until_it_holds(
    ours, tmp_path, scored, needed, left, gives
):
    scored(needed)
    made = export(ours, "wobbly", tmp_path / "out", behind_a_gate(gives=gives))
    assert made.float_layers == tuple(LAYERS[:left])
    assert made.gate == read_artefact(tmp_path / "out").gate
    assert (made.gate["before"], made.gate["after"]) == (90.0, 89.8)


@pytest.mark.parametrize(
    ("precision", "words"),
    [
        ("int8", r"top1 falls from 90.00 to 50.00, even with 4 of 10 .*: layer0, layer1, layer2"),
        ("fp32", r"in fp32: top1 falls from 90.00 to 50.00, more than 0.5 points; not written"),
    ],
)
def test_the_gate_refuses_and_names_the_worst_layers(ours, tmp_path, scored, precision, words):
    scored(9)
    with pytest.raises(UserError, match=words):
        export(ours, "wobbly", tmp_path / "out", behind_a_gate(precision))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"precision": "bf16"}, "wobbly is not exported in bf16; choose from fp32, int8"),
        ({"dynamic": True}, "wobbly takes fixed sizes only"),
        ({"precision": "int8"}, "int8 needs pictures like the device's .*; give --calib DIR"),
    ],
)
def test_what_does_not_fit_is_one_line(ours, tmp_path, options, words):
    with pytest.raises(UserError, match=words):
        export(ours, "wobbly", tmp_path / "out", Settings(**options))
    assert not list(tmp_path.iterdir())


def test_a_size_is_needed_where_the_weights_have_none(tmp_path):
    loaded = load_network("espnetv2_seg_s0_5.camvid")
    free = Loaded(**{**vars(loaded), "preprocessing": loaded.preprocessing.resized(None)})
    with pytest.raises(UserError, match="takes any size; give --size HxW, or --dynamic"):
        export(free, "wobbly", tmp_path / "out", Settings())


def test_unknown_targets_and_missing_packages(ours, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="onnx"):
        export(ours, "onxx", tmp_path / "out", Settings())
    monkeypatch.setitem(
        targets.TARGETS, "wobbly", Target("to_wobbly", "wob", ("no_such_package",), None, ("fp32",))
    )
    with pytest.raises(UserError, match=r'pip install "espnetv2\[wob\]"'):
        export(ours, "wobbly", tmp_path / "out", Settings())


@pytest.mark.parametrize("takes", ["input", "pixels"])
@pytest.mark.parametrize("gives", ["raw", "decoded"])
@pytest.mark.parametrize(
    "model", ["espnetv2_s0_5", "espnetv2_seg_s0_5", "espnetv2_ssd300_s0_5", "espnet_c_p2_q3"]
)
def test_pixels_go_in_and_answers_come_out_for_every_task(model, takes, gives, tmp_path):
    row = entry(model)
    torch.manual_seed(2)
    loaded = Loaded(
        make_lively(row.build(num_classes=5)),
        model,
        row.task,
        tuple("abcd" if row.task == "detection" else "abcde"),
        None,
        CONVENTIONS["edgenets-segmentation"].resized((64, 96)),
        "test",
        options={"num_classes": 5},
    )
    made = export(loaded, "wobbly", tmp_path / "out", Settings(takes=takes, gives=gives))
    assert made.difference < 1e-4
    assert made.agreement > 0.999
    engine = open_artefact(tmp_path / "out")
    spec = loaded.preprocessing
    picture = drawn_pictures(1, (120, 100))[0]
    given = spec.pixels(picture).float() if takes == "pixels" else spec(picture)
    outputs = engine.run_batch(given[None].numpy())
    assert [one.name for one in made.outputs] == {
        ("classification", "raw"): ["logits"],
        ("classification", "decoded"): ["probabilities"],
        ("segmentation", "raw"): ["logits"],
        ("segmentation", "decoded"): ["mask"],
        ("detection", "raw"): ["scores", "offsets"],
        ("detection", "decoded"): ["boxes", "scores", "labels"],
    }[row.task, gives]
    if gives == "decoded" and row.task == "segmentation":
        assert outputs[0].shape == (1, 64, 96)
        assert outputs[0].dtype == np.uint8


def test_a_classifier_of_several_labels_stays_one(tmp_path):
    torch.manual_seed(2)
    network = make_lively(entry("espnetv2_s0_5").build(num_classes=5)).eval()
    spec = CONVENTIONS["imagenet"].resized((64, 96))
    header = Header("espnetv2_s0_5", {"num_classes": 5}, tuple("abcde"), None, spec.to_json())
    weights = tmp_path / "several.safetensors"
    write_safetensors(network.state_dict(), replace(header, multi_label=True), weights)
    loaded, picture = load_network(weights), drawn_pictures(1, (120, 100))[0]
    with torch.inference_mode():
        shares = loaded.network(spec(picture)[None]).sigmoid()[0]
    assert (shares > 0.5).sum() >= 2  # or the weights show nothing
    export(loaded, "wobbly", tmp_path / "raw", Settings())
    for place in (weights, tmp_path / "raw"):
        found = load(place)(picture)
        assert sorted(found.labels) == [
            c for c, one in zip("abcde", shares, strict=True) if one > 0.5
        ]
        assert np.allclose(found.scores, sorted(shares[shares > 0.5].tolist())[::-1], atol=1e-5)
    export(loaded, "wobbly", tmp_path / "out", Settings(gives="decoded"))
    answers = open_artefact(tmp_path / "out").run_batch(spec(picture)[None].numpy())[0]
    assert np.allclose(answers[0], shares, atol=1e-5)


@pytest.mark.parametrize("takes", ["input", "pixels"])
def test_prediction_takes_artefacts(ours, tmp_path, takes):
    export(ours, "wobbly", tmp_path / "out", Settings(takes=takes))
    picture = Image.effect_noise((200, 150), 80).convert("RGB")
    plain, engine = load("espnetv2_s0_5.imagenette"), load(tmp_path / "out", threads=1)
    expected, found = plain(picture), engine(picture)
    assert found.labels == expected.labels
    assert np.allclose(found.scores, expected.scores, atol=1e-4)
    three = engine.predict([picture] * 3)  # its batch is 1
    assert [one.labels for one in three] == [expected.labels] * 3


def test_an_artefact_of_another_size_says_so(ours, tmp_path):
    export(ours, "wobbly", tmp_path / "out", Settings(size=(64, 64)))
    with pytest.raises(UserError, match="takes pictures of 64x64, not 96x96; export it with"):
        load(tmp_path / "out", size=96)(Image.new("RGB", (96, 96)))


def test_decoded_artefacts_are_for_others(ours, tmp_path):
    export(ours, "wobbly", tmp_path / "out", Settings(gives="decoded"))
    with pytest.raises(UserError, match="export it with --output raw"):
        load(tmp_path / "out")


def test_an_engine_by_name_is_exported_once_and_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("ESPNETV2_CACHE", str(tmp_path))
    first = load_engine("espnetv2_s0_5.imagenette", engine="wobbly")
    (place,) = (tmp_path / "engines").iterdir()
    stamp = (place / "export.json").stat().st_mtime_ns
    again = load_engine("espnetv2_s0_5.imagenette", engine="wobbly")
    assert (place / "export.json").stat().st_mtime_ns == stamp
    assert again.preprocessing == first.preprocessing
    load_engine("espnetv2_s0_5.imagenette", engine="wobbly", size=(64, 64))
    assert len(list((tmp_path / "engines").iterdir())) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"engine": "onnx"}, "onnxruntime"),
        ({"engine": "wobbly", "precision": "int8"}, "int8 needs pictures .* espnetv2 export"),
        ({"engine": "wobbly", "device": "cuda"}, "wobbly runs on the CPU, not on cuda"),
    ],
)
def test_engines_that_do_not_fit(options, words):
    with pytest.raises(UserError, match=words):
        load("espnetv2_s0_5.imagenette", **options)


def test_torch_engines_give_the_networks_numbers(ours):
    picture = Image.effect_noise((200, 150), 80).convert("RGB")
    plain = load("espnetv2_s0_5.imagenette")(picture)
    short = load("espnetv2_s0_5.imagenette", engine="torch", precision="bf16")(picture)
    assert np.abs(np.array(short.scores) - plain.scores).max() < 0.05
    assert short.scores != plain.scores


@pytest.mark.parametrize("text", ["miou", "=0.5", "miou=", "miou=x", "miou=-1", "miou=nan"])
def test_a_gate_is_a_metric_and_points(text):
    assert parse_gate("miou=0.5") == ("miou", 0.5)
    with pytest.raises(UserError, match=r"expected METRIC=POINTS, such as miou=0\.5"):
        parse_gate(text)
