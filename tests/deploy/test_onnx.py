"""The ONNX file says what the train form says, in ONNX Runtime, for every family of networks."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from deploy.lively import lively, parts
from espnetv2.deploy.artefact import Artefact, size_of
from espnetv2.deploy.blocks import Bend, in_blocks
from espnetv2.deploy.conversion import Job
from espnetv2.deploy.fold import fold
from espnetv2.deploy.forms import TwoSlopes
from espnetv2.deploy.language_step import LanguageStep
from espnetv2.deploy.outputs import DECODED_NAMES, NAMES, with_decoding
from espnetv2.deploy.targets import TARGETS
from espnetv2.deploy.verify import drawn_pictures
from espnetv2.errors import UserError
from espnetv2.models.catalog import entry
from espnetv2.weights.load import load_network

onnx = pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
pytest.importorskip("onnxscript", reason="the extra `onnx` is not installed")
pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")

from espnetv2.deploy import onnx_int8, to_onnx  # noqa: E402
from espnetv2.deploy.engine_onnxruntime import OnnxRuntimeEngine  # noqa: E402
from espnetv2.deploy.onnx_graph import layers  # noqa: E402

FAMILIES = [
    "espnetv2_s0_5",
    "espnetv2_seg_s0_5",
    "espnetv2_seg_arxiv_s0_5",
    "espnetv2_ssd300_s0_5",
    "espnet_c_p2_q3",
    "espnet_p2_q3",
    "shufflenetv1_g3_x0_5",
]
SLOW = {"Loop", "Scan", "If", "Identity", "PRelu", "BatchNormalization", "Gather"}


def folded(network):
    return fold(network, **TARGETS["onnx"].fold)


def job_of(network, *, task, size=(64, 96), batch=1, **options):
    images = torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(7))
    return Job(folded(network), (images,), ("image",), NAMES[task], **options)


def engine_of(folder, done, *, dynamic=False, precision="fp32", threads=1, **facts):
    artefact = Artefact(
        target="onnx",
        folder=folder,
        files=done.files,
        classes=(),
        palette=None,
        options={},
        precision=precision,
        inputs=done.inputs,
        outputs=done.outputs,
        dynamic=dynamic,
        bytes=size_of(folder, done.files),
        **{"model": "m", "task": "classification", "preprocessing": {}, **facts},
        takes="input",
        gives="raw",
    )
    return OnnxRuntimeEngine(artefact, threads=threads)


def assert_same(network, engine, *inputs, bound=1e-4, class_axis=1):
    with torch.inference_mode():
        truth = parts(network(*inputs))
    found = engine.run(*(one.numpy() for one in inputs))
    assert len(truth) == len(found)
    for one, other in zip(truth, found, strict=True):
        assert one.shape == other.shape
        assert np.abs(one.numpy() - other).max() <= bound * np.abs(one.numpy()).max()
    same = truth[0].numpy().argmax(class_axis) == found[0].argmax(class_axis)
    assert same.mean() >= 0.9999


def convert(job, folder):
    done = to_onnx.convert(job, folder)
    return done, onnx.load(folder / done.files[0])


@pytest.mark.parametrize(
    "name",
    ["espnetv2_s0_5", *(pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES[1:])],
)
def test_the_static_file_says_what_the_train_form_says(name, tmp_path):
    network, task = lively(entry(name).build()), entry(name).task
    size = (256, 320) if task == "segmentation" else (97, 131)
    job = job_of(network, task=task, size=size)
    done, model = convert(job, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == list(done.files)  # nothing beside it
    kinds = Counter(node.op_type for node in model.graph.node)
    assert not set(kinds) & SLOW
    assert not model.functions
    assert done.inputs[0].shape == (1, 3, *size)
    assert [port.name for port in done.outputs] == list(NAMES[task])
    assert_same(network, engine_of(tmp_path, done), job.inputs[0], class_axis=_axis(task))


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_one_file_takes_every_size_and_batch(name, tmp_path):
    network, task = lively(entry(name).build()), entry(name).task
    done, model = convert(job_of(network, task=task, batch=2, dynamic=True), tmp_path)
    assert done.inputs[0].shape == ("batch", 3, "height", "width")
    assert not {node.op_type for node in model.graph.node} & (SLOW - {"Gather"})
    engine = engine_of(tmp_path, done, dynamic=True)
    for batch, size in [(1, (64, 96)), (3, (97, 131)), (1, (33, 32)), (2, (256, 320))]:
        assert_same(network, engine, torch.randn(batch, 3, *size), class_axis=_axis(task))


def _axis(task):
    return 2 if task == "detection" else 1


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_step_of_the_language_model(dynamic, tmp_path):
    network = lively(entry("eru_lm_7m").build())
    train, deploy = LanguageStep(network), LanguageStep(folded(network))
    memory = [torch.randn_like(part) for part in train.beginning(2)]
    inputs = (torch.randint(0, 99, (1, 2)), *memory)
    done, _ = convert(
        Job(deploy, inputs, deploy.input_names, deploy.output_names, dynamic=dynamic), tmp_path
    )
    assert [port.name for port in done.inputs] == list(deploy.input_names)
    engine = engine_of(tmp_path, done, dynamic=dynamic)
    if dynamic:
        inputs = (torch.randint(0, 99, (1, 5)), *(part.repeat(3, 1)[:5] for part in memory))
    assert_same(train, engine, *inputs, class_axis=2)


def test_a_language_model_that_works_over_time_hands_its_context_on():
    from espnetv2.models.eru_lm import ERULanguageModel, Layout

    layout = Layout(width=16, embedding=16, layers=2, over_time=True)
    network = lively(ERULanguageModel(layout, vocabulary=10))
    step, words = LanguageStep(network), torch.randint(0, 10, (4, 3))
    assert step.input_names[:4] == ("tokens", "hidden_0", "cell_0", "context_0")
    memory, said = step.beginning(3), []
    with torch.inference_mode():
        for word in words:
            logits, *memory = step(word[None], *memory)
            said.append(logits)
        assert torch.allclose(torch.cat(said), network(words)[0], atol=1e-5)


@pytest.mark.parametrize("name", ["espnetv2_s0_5", "espnetv2_s1_25", "espnetv2_s2_0"])
@pytest.mark.parametrize("move", [True, False])
def test_blocks_change_nothing(name, move):
    network = lively(entry(name).build())
    before = folded(network)
    kept = {key: value.clone() for key, value in before.state_dict().items()}
    changed = in_blocks(before, move=move)
    x = torch.randn(1, 3, 97, 131)
    with torch.inference_mode():
        truth, found = network(x), changed(x)
    assert (truth - found).abs().max() <= 1e-5 * truth.abs().max()
    assert all(torch.equal(value, kept[key]) for key, value in before.state_dict().items())
    ends = [changed.backbone.stem.act, changed.backbone.final[-1].act]
    assert all(isinstance(act, Bend) == move for act in ends)  # from the picture to the logits


def test_branches_are_padded_to_whole_blocks():
    unit = in_blocks(folded(lively(entry("espnetv2_s2_0").build()))).backbone.stages[0].down.unit
    assert unit.reduce.conv.out_channels == 32  # 24, padded
    assert unit.reduce.conv.groups == 2  # of 4, whose 8 inputs were half a block
    assert unit.merge.conv.groups == 2


def test_a_slope_of_one_stays_where_it_is():
    """There is no kink to divide by."""
    network = lively(entry("espnetv2_s0_5").build())
    unit = network.backbone.stages[2].units[1]
    unit.reduce.act.weight.data[3] = 1.0
    changed = in_blocks(folded(network))
    assert isinstance(changed.backbone.stages[2].units[1].reduce.act, TwoSlopes)
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        truth, found = network(x), changed(x)
    assert (truth - found).abs().max() <= 1e-5 * truth.abs().max()


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
    around = [
        with_decoding(one, task=task, size=size, detector=network)
        for one in (network, folded(network))
    ]
    x = torch.randn(1, 3, *size)
    done, model = convert(Job(around[1], (x,), ("image",), DECODED_NAMES[task]), tmp_path)
    kinds = {node.op_type for node in model.graph.node}
    assert not kinds & {"Loop", "If", "NonMaxSuppression", "NonZero"}  # no shape depends on data
    with torch.inference_mode():
        truth = parts(around[0].eval()(x))
    for one, other, port in zip(
        truth, engine_of(tmp_path, done).run(x.numpy()), done.outputs, strict=True
    ):
        assert port.dtype == str(other.dtype)
        assert port.shape == other.shape
        assert np.abs(one.numpy().astype(float) - other).mean() <= 1e-3


def test_half_has_float_ports_and_is_reported_as_what_the_processor_computes(tmp_path):
    network = lively(entry("espnetv2_s0_5").build())
    job = job_of(network, task="classification", precision="fp16")
    done, model = convert(job, tmp_path)
    assert {port.dtype for port in (*done.inputs, *done.outputs)} == {"float32"}
    assert (tmp_path / "model.onnx").stat().st_size < 4e6
    half = onnx.TensorProto.FLOAT16
    weights = {one.data_type for one in model.graph.initializer if one.name.endswith("weight")}
    assert weights == {half}
    engine = engine_of(tmp_path, done, precision="fp16")
    assert engine.precision in {"fp16", "fp32"}  # fp32 where there are no kernels of half
    assert_same(network, engine, job.inputs[0], bound=3e-2)


@pytest.fixture(scope="module")
def segmenter():
    return load_network("espnetv2_seg_s0_5.camvid")


def calibration(loaded, size, count=4):
    spec = loaded.preprocessing.resized(size)
    return [spec(picture)[None].numpy() for picture in drawn_pictures(count, size)]


@pytest.mark.slow
def test_int8_keeps_the_layers_that_it_is_told_to_in_float(segmenter, tmp_path):
    size = (96, 128)
    job = job_of(segmenter.network, task="segmentation", size=size, precision="int8")
    job = replace(job, calibration=calibration(segmenter, size))
    ranking = to_onnx.rank_layers(job, tmp_path)
    done, model = convert(replace(job, float_layers=tuple(ranking[:3])), tmp_path)
    assert sorted(ranking) == sorted(layers(to_onnx.to_model(job).graph))
    found = {node.name: _quantized_input(model.graph, node) for node in model.graph.node}
    in_float = {name for name in ranking if not found[name]}
    assert in_float == set(ranking[:3])
    engine = engine_of(tmp_path, done, precision="int8")
    assert engine.precision == "int8"
    x = job.calibration[0]
    with torch.inference_mode():
        truth = segmenter.network(torch.from_numpy(x)).numpy()
    same = truth.argmax(1) == engine.run(x)[0].argmax(1)
    assert same.mean() > 0.9


def _quantized_input(graph, node):
    made_by = {name: one.op_type for one in graph.node for name in one.output}
    return made_by.get(node.input[0]) == "DequantizeLinear"


def test_int8_needs_pictures_and_known_layers(segmenter, tmp_path, monkeypatch):
    job = job_of(segmenter.network, task="segmentation", precision="int8")
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], []))
    with pytest.raises(UserError, match="--calib"):
        onnx_int8.quantized(model, job)
    job = replace(job, calibration=[job.inputs[0].numpy()], float_layers=("nowhere",))
    with pytest.raises(UserError, match="nowhere"):
        onnx_int8.quantized(model, job)


def test_a_damaged_file_is_one_line(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    from espnetv2.deploy.conversion import Converted

    done = Converted(files=("model.onnx",), inputs=(), outputs=())
    with pytest.raises(UserError, match="cannot read it"):
        engine_of(tmp_path, done)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("espnetv2_seg_s0_5.camvid", marks=pytest.mark.slow),
        "espnetv2_s0_5.imagenette",
    ],
)
def test_shipped_weights_on_pictures(name, tmp_path):
    loaded = load_network(name)
    size = (256, 320) if loaded.task == "segmentation" else (224, 224)
    spec = loaded.preprocessing.resized(size)
    done, _ = convert(job_of(loaded.network, task=loaded.task, size=size), tmp_path)
    engine = engine_of(tmp_path, done)
    for picture in drawn_pictures(2, size):
        assert_same(loaded.network, engine, spec(picture)[None])


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize(
    "name",
    [
        "espnetv2_seg_s0_5.edgenets_voc_256",
        "espnetv2_seg_s2_0.edgenets_city_512",
        "espnetv2_seg_arxiv_s1_0.espnetv2_city_1024",
        "espnet_c_p2_q8.cityscapes",
        "espnet_p2_q8.camvid",
    ],
)
def test_released_weights_on_pictures(name, shared, monkeypatch, tmp_path):
    monkeypatch.setenv("ESPNETV2_WEIGHTS", str(shared / "weights"))
    loaded, size = load_network(name), (256, 320)
    spec = loaded.preprocessing.resized(size)
    done, _ = convert(job_of(loaded.network, task=loaded.task, size=size), tmp_path)
    for picture in drawn_pictures(2, size):
        assert_same(loaded.network, engine_of(tmp_path, done), spec(picture)[None])
