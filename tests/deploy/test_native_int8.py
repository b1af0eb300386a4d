"""The native engine in int8: what it computes is what rounding its layers in torch gives."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from deploy.isa import run_with
from deploy.lively import lively
from deploy.rounding import calibration, distance, first, in_bytes, noise
from espnetv2.deploy.engines import open_artefact
from espnetv2.deploy.export import export
from espnetv2.deploy.fold import fold
from espnetv2.deploy.gate import Judge
from espnetv2.deploy.native_int8 import Bytes, ranges, rank, rounded
from espnetv2.deploy.subject import Settings
from espnetv2.deploy.verify import drawn_pictures
from espnetv2.errors import UserError
from espnetv2.models.catalog import entry
from espnetv2.weights.load import load_network

native = pytest.importorskip("espnetv2_native", reason="the native engine was not built")

from espnetv2.deploy.engine_native import NativeEngine  # noqa: E402
from espnetv2.deploy.to_native import content_of  # noqa: E402

FAMILIES = [
    "espnetv2_s1_25",  # widths that fill no block
    "espnetv2_seg_s2_0",
    "espnetv2_seg_arxiv_s0_5",
    "espnetv2_ssd300_s0_5",
    "espnet_p2_q3",
    "shufflenetv1_g3_x1_0",
]


@pytest.mark.parametrize("isa", ["vnni", "vnni_bf16", "amx"])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_layers_round_as_torch_would(name, isa, tmp_path):
    network = fold(lively(entry(name).build()))
    images = noise(2, 97, 131, seed=9)
    content = content_of(network, precision="int8", notes={}, calibration=calibration())
    found = run_with(isa, content, images, tmp_path)
    with torch.inference_mode():
        truth, expected = first(network(images)), first(in_bytes(network)(images))
    lost = distance(expected, truth)
    assert found.shape == truth.shape
    assert 1e-3 < lost < 0.2  # bytes are far from floats
    # a value on the other side of a half in one layer moves others in the next; where maps are
    # bfloat16 they are rounded to that as well
    assert distance(found, expected) <= (1.0 if isa == "vnni" else 1.5) * lost


@pytest.mark.parametrize("name", ["espnetv2_s1_25", "espnetv2_seg_s2_0"])
@pytest.mark.parametrize("place", [0, 3, 10, -1])
def test_one_layer_rounds_exactly(name, place, tmp_path):
    network = fold(lively(entry(name).build()))
    layers = sorted(rank(network, calibration()))
    others = [one for one in layers if one != layers[place]]
    images = noise(2, 97, 131, seed=9)
    options = {"precision": "int8", "notes": {}, "calibration": calibration()}
    content = content_of(network, float_layers=others, **options)
    found = run_with("vnni", content, images, tmp_path)
    with torch.inference_mode():
        expected = first(in_bytes(network, others)(images))
        lost = distance(expected, first(in_bytes(network, layers)(images)))
    assert distance(found, expected) <= 0.1 * lost


@pytest.mark.parametrize("isa", ["avx512", "avx2", "plain", "neon"])
def test_without_such_instructions_the_weights_alone_are_rounded(isa, tmp_path):
    network = fold(lively(entry("espnetv2_seg_s1_25").build()))
    images = noise(2, 65, 131, seed=9)
    content = content_of(network, precision="int8", notes={}, calibration=calibration())
    found = run_with(isa, content, images, tmp_path)
    changed = copy.deepcopy(network)
    for layer in ranges(changed, calibration()):
        weight, scale = rounded(layer.weight.detach())
        layer.weight.data = weight * scale.view(-1, *[1] * (weight.dim() - 1))
    with torch.inference_mode():
        truth, expected = network(images).numpy(), changed(images).numpy()
    # what is not in bytes is in halves in the file
    assert distance(found, expected) < distance(truth, expected)


def test_the_same_bits_for_every_thread_count():
    network = fold(lively(entry("espnetv2_seg_s1_0").build()))
    images = noise(2, 113, 87).numpy()
    options = {"precision": "int8", "calibration": calibration()}
    truth = NativeEngine.of(network, threads=1, **options).run(images)[0]
    for threads in (2, 3, 7):
        engine = NativeEngine.of(network, threads=threads, **options)
        for _ in range(3):
            assert np.array_equal(truth, engine.run(images)[0])


def test_values_beyond_the_range_and_no_numbers_are_bounded():
    network = fold(lively(entry("espnetv2_s0_5").build()))
    engine = NativeEngine.of(network, precision="int8", threads=1, calibration=calibration())
    images = noise(1, 64, 64).numpy()
    assert np.isfinite(engine.run(1000 * images)[0]).all()
    images[0, :, 10:20] = np.nan
    engine.run(images)  # what it gives is no matter; that it ends is


def test_ranges_hold_zero_and_nearly_all_values():
    assert Bytes.between(1.0, 63.75) == Bytes(0.25, 0)
    assert Bytes.between(-63.75, -1.0) == Bytes(0.25, 255)
    assert Bytes.between(-25.0, 38.75) == Bytes(0.25, 100)
    network = torch.nn.Sequential(torch.nn.Conv2d(16, 32, 1))
    x = torch.zeros(1, 16, 100, 100)
    x[0, 0, 0, :8], x[0, 1, 0, :8] = 1000, -1000  # one value in 10,000 at either end
    x[0, 2, 1:50] = 2.55
    (found,) = ranges(network, [x.numpy()]).values()
    assert found.zero == 0
    assert found.scale == pytest.approx(0.01, rel=1e-3)


def test_a_file_of_bytes(tmp_path):
    loaded = load_network("espnetv2_s0_5.imagenette")
    made = {
        precision: export(
            loaded,
            "native",
            tmp_path / precision,
            Settings(precision=precision, calibration=drawn_pictures(8, (128, 128))),
        )
        for precision in ("bf16", "int8")
    }
    assert made["int8"].bytes < 0.8 * made["bf16"].bytes
    engine = open_artefact(tmp_path / "int8", threads=2)
    assert (engine.name, engine.precision) == ("native", "int8")
    with safe_open(made["int8"].path, framework="pt") as file:
        kinds = {file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118
    assert kinds == {torch.int8, torch.bfloat16, torch.float32}


def test_layers_are_ranked_and_left_in_float():
    network = fold(lively(entry("espnetv2_s0_5").build()))
    worst = rank(network, calibration())
    assert "classifier" in worst
    assert not any("stem" in name for name in worst)  # 3x3
    with pytest.raises(UserError, match="no such layers to leave in float: nothing"):
        ranges(network, calibration(), float_layers=["nothing"])
    kept = ranges(network, calibration(), float_layers=worst[:3])
    assert len(kept) == len(worst) - 3


def test_pictures_are_needed():
    network = fold(lively(entry("espnetv2_s0_5").build()))
    with pytest.raises(UserError, match="int8 needs pictures like the device's"):
        content_of(network, precision="int8", notes={})


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["espnet_p2_q8.camvid", "espnetv2_seg_s0_5.camvid"])
def test_camvid_loses_half_a_point_at_most(name, shared, monkeypatch):
    monkeypatch.setenv("ESPNETV2_WEIGHTS", str(shared / "weights"))
    loaded = load_network(name)
    judge = Judge("camvid", shared / "data" / "camvid", "test", None)
    spec = loaded.preprocessing
    pictures = sorted((shared / "data" / "camvid" / "images" / "train").iterdir())[::12][:32]
    seen = [spec(Image.open(one).convert("RGB"))[None].numpy() for one in pictures]
    network = fold(loaded.network)
    scores = [
        judge.scores(
            one, task=loaded.task, preprocessing=loaded.preprocessing, classes=loaded.classes
        )["mean_iou"]
        for one in (
            NativeEngine.of(network, threads=2),
            NativeEngine.of(network, precision="int8", threads=2, calibration=seen),
        )
    ]
    assert scores[1] >= scores[0] - 0.5
