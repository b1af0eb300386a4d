"""The .tflite file says what the train form says, in LiteRT.

Files made by hand are run wherever the runtime is; conversion needs an environment of its own.
"""

import pathlib
import re
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import nn

from deploy.lively import lively, parts
from espnetv2.data.preprocess import CONVENTIONS
from espnetv2.deploy.artefact import Artefact, Port, size_of
from espnetv2.deploy.conversion import Job
from espnetv2.deploy.export import export
from espnetv2.deploy.fold import fold
from espnetv2.deploy.forms import TwoSlopes
from espnetv2.deploy.language_step import LanguageStep
from espnetv2.deploy.opening import load_engine
from espnetv2.deploy.outputs import NAMES
from espnetv2.deploy.subject import Settings
from espnetv2.deploy.targets import TARGETS, converter
from espnetv2.deploy.verify import drawn_pictures
from espnetv2.errors import UserError
from espnetv2.models.catalog import entry
from espnetv2.weights.load import Loaded, load_network

pytest.importorskip("ai_edge_litert", reason="the extra `litert-runtime` is not installed")

from ai_edge_litert import schema_py_generated as schema

from espnetv2.deploy import litert_graph, litert_short, to_litert
from espnetv2.deploy.engine_litert import LiteRtEngine
from espnetv2.deploy.forms_litert import for_litert

converts = pytest.mark.skipif(
    find_spec("litert_torch") is None, reason="the extra `litert` is not installed (make litert)"
)
SLOPES = torch.tensor([-1.5, -0.3, 0.0, 0.25, 0.9, 1.0, 1.7, 3.0])
FAMILIES = [
    "espnetv2_s0_5",
    "espnetv2_seg_s0_5",
    "espnetv2_seg_arxiv_s0_5",
    "espnetv2_ssd300_s0_5",
    "espnet_c_p2_q3",
    "espnet_p2_q3",
    "shufflenetv1_g3_x0_5",
]


def engine_of(folder, inputs, outputs, *, precision="fp32", threads=1):
    artefact = Artefact(
        target="litert",
        folder=folder,
        files=(to_litert.FILE,),
        model="m",
        task="classification",
        classes=(),
        palette=None,
        preprocessing={},
        options={},
        precision=precision,
        takes="input",
        gives="raw",
        inputs=inputs,
        outputs=outputs,
        dynamic=False,
        bytes=size_of(folder, (to_litert.FILE,)),
    )
    return LiteRtEngine(artefact, threads=threads)


class Written:
    """A PReLU as the converter writes it, made by hand."""

    def __init__(self, slopes=SLOPES, minus=-1.0, slope_shape=(1, 1, 1, 8)):
        self.model = model = schema.ModelT()
        model.version, model.operatorCodes, model.buffers = 3, [], [schema.BufferT()]
        self.graph = graph = schema.SubGraphT()
        graph.tensors, graph.operators, model.subgraphs = [], [], [graph]
        sides = [1, 4, 5, 8]
        x, risen, turned, scaled, out = (self.tensor(f"t{i}", sides) for i in range(5))
        minus = self.tensor("minus", [], [minus])
        slope = self.tensor("slope", list(slope_shape), slopes)
        kinds, relu = schema.BuiltinOperator, schema.ActivationFunctionType.RELU
        self.operator(kinds.RELU, [x], risen)
        self.operator(kinds.MUL, [x, minus], turned, schema.MulOptionsT, relu)
        self.operator(kinds.MUL, [turned, slope], scaled, schema.MulOptionsT)
        self.operator(kinds.SUB, [risen, scaled], out, schema.SubOptionsT)
        self.scaled = scaled
        self.finish([x], [out])

    def tensor(self, name, shape, values=None):
        one = schema.TensorT()
        one.name, one.shape, one.type, one.buffer = name, shape, schema.TensorType.FLOAT32, 0
        if values is not None:
            held = schema.BufferT()
            held.data = list(np.asarray(values, np.float32).tobytes())
            self.model.buffers.append(held)
            one.buffer = len(self.model.buffers) - 1
        self.graph.tensors.append(one)
        return len(self.graph.tensors) - 1

    def operator(self, kind, inputs, out, options=None, fused=0):
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = kind
        code.version = 1
        self.model.operatorCodes.append(code)
        one = schema.OperatorT()
        one.opcodeIndex = len(self.model.operatorCodes) - 1
        one.inputs, one.outputs = inputs, [out]
        if options is not None:
            one.builtinOptions = options()
            one.builtinOptions.fusedActivationFunction = fused
            name = options.__name__.removesuffix("T")
            one.builtinOptionsType = getattr(schema.BuiltinOptions, name)
        self.graph.operators.append(one)

    def finish(self, inputs, outputs):
        self.graph.inputs, self.graph.outputs = inputs, outputs
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = "serving_default", 0
        signature.inputs, signature.outputs = [], []
        for kind, places in (("args", inputs), ("output", outputs)):
            for number, place in enumerate(places):
                port = schema.TensorMapT()
                port.name, port.tensorIndex = f"{kind}_{number}", place
                (signature.inputs if kind == "args" else signature.outputs).append(port)
        self.model.signatureDefs = [signature]

    def engine(self, folder, *, threads=1):
        names = [f"out{number}" for number in range(len(self.graph.outputs))]
        litert_graph.rename(self.model, ["image"], names)
        inputs, outputs = (
            litert_graph.ports(self.model, *of)
            for of in ((["image"], self.graph.inputs), (names, self.graph.outputs))
        )
        (folder / to_litert.FILE).write_bytes(litert_graph.write(self.model))
        return engine_of(folder, inputs, outputs, threads=threads)


def pictures(shape=(1, 4, 5, 8)):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("join", [False, True])
def test_slopes_of_any_sign_and_size_are_one_prelu(join, tmp_path):
    written = Written()
    if join:
        assert litert_graph.join_prelus(written.model) == 1
        assert litert_graph.kinds(written.model) == {"PRELU": 1}
        assert len(written.graph.tensors) == 3  # of seven: what nobody computes is gone
    engine = written.engine(tmp_path, threads=2)
    assert engine.artefact.inputs == (Port("image", (1, 4, 5, 8)),)
    assert (engine.precision, engine.threads) == ("fp32", 2)
    x = pictures()
    expected = torch.where(x > 0, x, SLOPES * x).numpy()
    (found,) = engine.run(x.numpy())
    assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()


def test_what_only_looks_like_a_prelu_stays_as_it_is(tmp_path):
    other_factor = Written(minus=-2.0)
    by_place = Written(slopes=torch.ones(5), slope_shape=(1, 1, 5, 1))
    read_twice = Written()
    read_twice.finish([0], [4, read_twice.scaled])
    x = pictures()
    for written in (other_factor, by_place, read_twice):
        before = litert_graph.write(written.model)
        assert litert_graph.join_prelus(written.model) == 0
        assert litert_graph.write(written.model) == before
    assert len(read_twice.engine(tmp_path).run(x.numpy())) == 2


def test_wide_slopes_say_what_two_slopes_say():
    torch.manual_seed(0)
    slopes = TwoSlopes(torch.randn(8), SLOPES.clone())
    wide = for_litert(nn.Sequential(slopes))
    for shape in [(2, 8, 5, 7), (3, 8)]:
        x = torch.randn(shape)
        assert torch.equal(wide(x), slopes(x))


@pytest.mark.parametrize("content", [b"", b"not a graph", b"\x1c\0\0\0TFL3" + bytes(40)])
def test_a_damaged_file_is_one_line(content, tmp_path):
    (tmp_path / to_litert.FILE).write_bytes(content)
    with pytest.raises(UserError, match=r"model\.tflite: LiteRT cannot read it .*; export again"):
        engine_of(tmp_path, (), ())


def test_ports_that_the_file_has_not_are_one_line(tmp_path):
    Written().engine(tmp_path)
    with pytest.raises(UserError, match="cannot read it"):
        engine_of(tmp_path, (Port("pixels", (1, 4, 5, 8)),), ())


def test_without_the_converter_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "litert_torch", None)
    with pytest.raises(UserError, match=r'"espnetv2\[litert\]", in an environment of its own \('):
        converter("litert")


def test_free_sizes_are_refused(tmp_path):
    loaded = load_network("espnetv2_s0_5.imagenette")
    job = Job(loaded.network, (pictures(),), ("image",), ("logits",), dynamic=True)
    with pytest.raises(UserError, match="litert takes fixed sizes only"):
        to_litert.convert(job, tmp_path)
    if find_spec("litert_torch") is not None:
        with pytest.raises(UserError, match="give --size HxW instead of --dynamic"):
            export(loaded, "litert", tmp_path / "out", Settings(dynamic=True))


class Slopes(nn.Sequential):
    """Every kind of layer that LiteRT treats in its own way, and every kind of slope."""

    def __init__(self):
        torch.manual_seed(0)
        flat = torch.where(SLOPES == 0, 0.0, 1.0)
        super().__init__(
            nn.Conv2d(3, 8, 3, padding=1),
            TwoSlopes(torch.ones(8), SLOPES),
            nn.Conv2d(8, 8, 3, stride=2, padding=2, dilation=2, groups=8),
            TwoSlopes(flat, SLOPES.clone()),
            nn.AvgPool2d(3, stride=2, padding=1),
            nn.Conv2d(8, 8, 1, groups=2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 5),
        )
        self.eval()


def converted(job, folder):
    done = converter("litert").convert(job, folder)
    model = litert_graph.read((folder / done.files[0]).read_bytes())
    engine = engine_of(folder, done.inputs, done.outputs, precision=job.precision)
    return engine, litert_graph.kinds(model), model


def assert_same(network, engine, *inputs, bound=1e-4, class_axis=1):
    with torch.inference_mode():
        truth = parts(network(*inputs))
    found = engine.run(*(one.numpy() for one in inputs))
    assert [one.shape for one in truth] == [one.shape for one in found]
    for one, other in zip(truth, found, strict=True):
        assert np.abs(one.numpy() - other).max() <= bound * np.abs(one.numpy()).max()
    if class_axis is not None:
        same = truth[0].numpy().argmax(class_axis) == found[0].argmax(class_axis)
        assert same.mean() >= 0.9999


@converts
@pytest.mark.slow
@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-5), ("fp16", 1e-3), ("int8", 0.05)])
def test_each_precision(precision, bound, tmp_path):
    network, chance = Slopes(), torch.Generator().manual_seed(1)
    calibration = [torch.randn(1, 3, 16, 20, generator=chance).numpy() for _ in range(8)]
    x = torch.from_numpy(calibration[0])
    job = Job(network, (x,), ("image",), ("logits",), precision=precision, calibration=calibration)
    engine, kinds, model = converted(job, tmp_path)
    assert_same(network, engine, x, bound=bound, class_axis=None)
    assert engine.precision == ("int8" if precision == "int8" else "fp32")
    assert kinds["PRELU"] == 1
    assert kinds["TRANSPOSE"] == 1  # from the picture's layout into LiteRT's, once
    layers = ["0", "2", "5", "8"]
    if precision != "int8":
        if precision == "fp32":
            found = litert_short.layers(model, for_litert(network)).values()
            assert list(found) == [(name,) for name in layers]
        assert kinds["DEQUANTIZE"] == (len(layers) if precision == "fp16" else 0)
        return
    assert kinds["QUANTIZE"] == len(layers)
    assert set(to_litert.rank_layers(job, tmp_path)) == set(layers)
    kept = converted(replace(job, float_layers=("2", "8")), tmp_path)[1]
    assert kept["QUANTIZE"] == 2
    with pytest.raises(UserError, match="no such layers to leave in float: nowhere"):
        to_litert.convert(replace(job, float_layers=("nowhere",)), tmp_path)
    with pytest.raises(UserError, match="give --calib"):
        to_litert.convert(replace(job, calibration=()), tmp_path)


@converts
@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_its_file(name, tmp_path):
    network, task = lively(entry(name).build()), entry(name).task
    size = (96, 128) if task == "segmentation" else (97, 131)
    x = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(7))
    form = fold(network, **TARGETS["litert"].fold)
    engine, kinds, _ = converted(Job(form, (x,), ("image",), NAMES[task]), tmp_path)
    assert_same(network, engine, x, class_axis=2 if task == "detection" else 1)
    assert kinds["PRELU"] or name.startswith("shufflenet")


@converts
@pytest.mark.slow
def test_a_language_step_is_its_file(tmp_path):
    network = lively(entry("eru_lm_7m").build(num_classes=99))
    step, form = LanguageStep(network), LanguageStep(fold(network)).eval()
    memory = tuple(torch.randn(one.shape) for one in step.beginning(1))
    inputs = (torch.randint(0, 99, (1, 1)), *memory)
    engine, _, _ = converted(Job(form, inputs, step.input_names, step.output_names), tmp_path)
    assert engine.artefact.inputs[0].dtype == "int32"
    assert_same(step, engine, *inputs, class_axis=2)


@converts
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_our_weights_decide_the_same(precision, tmp_path):
    loaded, size = load_network("espnetv2_seg_s0_5.camvid"), (256, 320)
    settings = Settings(precision=precision, size=size, pictures=drawn_pictures(2, size))
    made = export(loaded, "litert", tmp_path / "out", settings)
    assert made.difference <= (1e-4 if precision == "fp32" else 1e-2)
    assert made.agreement >= (0.9999 if precision == "fp32" else 0.998)
    assert made.computes_in == "fp32"
    assert load_engine(tmp_path / "out", threads=1).preprocessing.size == size


@converts
@pytest.mark.slow
@pytest.mark.parametrize("name", ["espnetv2_s0_5", "espnetv2_seg_s0_5", "espnetv2_ssd300_s0_5"])
def test_decoded_outputs_of_pixels(name, tmp_path):
    row, size = entry(name), (64, 96)
    torch.manual_seed(2)
    classes = tuple("abcd" if row.task == "detection" else "abcde")
    spec = CONVENTIONS["edgenets-segmentation"].resized(size)
    options = {"num_classes": 5}
    loaded = Loaded(
        lively(row.build(**options)), name, row.task, classes, None, spec, "test", options=options
    )
    settings = Settings(takes="pixels", gives="decoded")
    made = export(loaded, "litert", tmp_path / "out", settings)
    assert made.difference <= 1e-3
    assert made.agreement >= 0.999
    assert made.inputs == (Port("pixels", (1, 3, *size)),)


@converts
@pytest.mark.slow
def test_the_page(tmp_path, monkeypatch):
    """Its commands, in the environment that converts."""
    root = pathlib.Path(__file__).resolve().parents[2]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(root / "examples")
    page = (root / "docs" / "deploy" / "litert.md").read_text(encoding="utf-8")
    commands = re.findall(r"^(?:\S+/)?(espnetv2 .*)$", page, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        words = [sys.executable, "-m", *command.split()]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert not done.stderr
    assert (tmp_path / "predictions").is_dir()
