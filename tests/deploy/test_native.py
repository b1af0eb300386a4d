"""The native engine says what the train form says: every family, size, batch and thread count."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from deploy.converted import FAMILIES, difference
from deploy.isa import run_with
from deploy.lively import lively, parts
from deploy.rounding import noise
from espnetv2.deploy.engines import open_artefact
from espnetv2.deploy.export import export
from espnetv2.deploy.fold import fold
from espnetv2.deploy.gate import Judge
from espnetv2.deploy.outputs import with_decoding
from espnetv2.deploy.subject import Settings
from espnetv2.deploy.verify import compare, pictures_in
from espnetv2.errors import UserError
from espnetv2.models.catalog import entry, list_models
from espnetv2.models.espnetv2 import ESPNetv2, ESPNetv2Backbone, Layout
from espnetv2.models.espnetv2_seg import ESPNetv2Seg
from espnetv2.models.torchvision_backbones import mobilenet_v2_backbone
from espnetv2.weights.load import load_network

espnetv2_native = pytest.importorskip(
    "espnetv2_native", reason="the native engine was not built: no C++ compiler"
)

from espnetv2.deploy.engine_native import NativeEngine  # noqa: E402
from espnetv2.deploy.to_native import content_of  # noqa: E402

BOUND = 1e-5  # of the largest output; 2e-6 is what is seen


def engine_of(network, threads=1):
    return NativeEngine.of(fold(network), threads=threads)


def assert_sees_the_picture(network, engine, size):
    """Random networks answer alike for all pictures, so what a picture changes is compared too."""
    one, other = noise(1, *size, seed=1), noise(1, *size, seed=2)
    with torch.inference_mode():
        truth = [a - b for a, b in zip(parts(network(one)), parts(network(other)), strict=True)]
    found = zip(engine.run(one.numpy()), engine.run(other.numpy()), strict=True)
    for change, (a, b) in zip(truth, found, strict=True):
        assert np.abs(a - b - change.numpy()).max() <= 0.02 * change.abs().max()


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_at_every_size_batch_and_thread_count(name):
    network = lively(entry(name).build())
    for threads, images in [
        (1, noise(1, 64, 96)),
        (2, noise(2, 97, 131)),
        (3, noise(1, 33, 45)),
        (4, noise(4, 32, 57)),
    ]:
        assert difference(network, engine_of(network, threads), images) <= BOUND
    assert_sees_the_picture(network, engine_of(network), (64, 96))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in list_models() if entry(name).task != "language"])
def test_the_whole_catalog(name):
    network = lively(entry(name).build())
    engine = engine_of(network, threads=2)
    for images in (noise(1, 97, 131), noise(2, 64, 200)):
        assert difference(network, engine, images) <= BOUND
    assert_sees_the_picture(network, engine, (64, 64))


def layout_of(channels, branches, units=(1, 1, 1, 1)):
    return Layout(channels, 4 * branches, units, receptive_fields=(5,) * 5, branches=branches)


def test_maps_of_one_column():
    """Plane by plane, even pixels apart: such a row has no odd ones, but zeros beside it."""
    network = lively(ESPNetv2(layout_of((2, 6, 12, 18, 24), 1), num_classes=5))
    for size in [(46, 1), (46, 2), (97, 2), (1, 46), (1, 1)]:
        assert difference(network, engine_of(network), noise(2, *size)) <= BOUND


@pytest.mark.parametrize(("branches", "channels"), [(5, (50, 125, 150, 225)), (3, (9, 18, 36, 72))])
def test_skips_that_have_hardly_a_group(branches, channels):
    """What a skip's two widths have in common is 2 or 1 here."""
    backbone = ESPNetv2Backbone(layout_of(channels, branches), stages=4)
    network = lively(ESPNetv2Seg(backbone, num_classes=7))
    assert difference(network, engine_of(network, threads=2), noise(2, 41, 67)) <= BOUND


def test_drawn_layouts_at_drawn_sizes():
    """Widths that no published network has."""
    draw = random.Random(0)
    for _ in range(25):
        branches = draw.choice([1, 2, 3, 4, 5])
        square = branches * branches
        channels = [square * draw.randint(1, 3)]
        while len(channels) < 5:
            channels.append(channels[-1] + square * draw.randint(1, 3))
        layout = replace(
            layout_of(tuple(channels), branches, tuple(draw.randint(0, 1) for _ in range(4))),
            image_shortcut=draw.random() < 0.7,
            fusion=draw.random() < 0.8,
            grouped_reduction=draw.random() < 0.8,
            convolution=draw.choice(["depthwise-dilated", "depthwise", "dilated"]),
        )
        seen = draw.randint(1, 5)
        network = lively(ESPNetv2(layout, num_classes=5, in_channels=seen))
        images = torch.randn(2, seen, draw.randint(1, 70), draw.randint(1, 70))
        assert difference(network, engine_of(network, draw.randint(1, 3)), images) <= BOUND, (
            layout,
            images.shape,
        )


def test_the_same_bits_for_every_thread_count():
    network = fold(lively(entry("espnetv2_seg_s1_0").build()))
    images = noise(2, 113, 87).numpy()
    truth = NativeEngine.of(network, threads=1).run(images)[0]
    for threads in (2, 3, 7):
        engine = NativeEngine.of(network, threads=threads)
        for _ in range(3):
            assert np.array_equal(truth, engine.run(images)[0])


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("espnetv2_seg_s0_5", [(512, 1024), (481, 1391), (300, 900), (660, 1200)]),
        ("espnetv2_ssd300_s0_5", [(738, 452)]),
        ("espnet_p2_q8", [(616, 70)]),
        pytest.param("espnetv2_seg_s1_0", [(512, 1024)], marks=pytest.mark.slow),
        pytest.param("espnetv2_seg_s2_0", [(512, 1024), (149, 1291)], marks=pytest.mark.slow),
        pytest.param("espnetv2_ssd512_s2_0", [(512, 512)], marks=pytest.mark.slow),
    ],
)
def test_large_maps_for_every_thread_count(name, sizes):
    """Where groups of steps keep a few rows of a map only; most of these sizes went wrong once."""
    network = lively(entry(name).build())
    engines = [engine_of(network, threads) for threads in (1, 2, 3, 5)]
    for size in sizes:
        images = noise(1, *size)
        with torch.inference_mode():
            truth = [part.numpy() for part in parts(network(images))]
        for engine in engines:
            for a, b in zip(engine.run(images.numpy()), truth, strict=True):
                assert np.abs(a - b).max() <= BOUND * np.abs(b).max(), size


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["espnetv2_seg_s0_5", "espnetv2_seg_s2_0", "espnetv2_ssd300_s0_5", "espnet_p2_q8"]
)
def test_any_size_gives_the_same_bits_for_every_thread_count(name):
    """Other threads are other groups and bands, so what one of them gets wrong shows."""
    network = fold(lively(entry(name).build()))
    model = espnetv2_native.Model.of(content_of(network, notes={}))
    sizes = np.random.default_rng(0).integers(32, (800, 1200), size=(25, 2))
    for height, width in sizes.tolist():
        images = noise(1, height, width).numpy()
        truth = model.open(1, height, width, 1).run(images)
        for threads in (2, 3, 5):
            found = model.open(1, height, width, threads).run(images)
            for a, b in zip(found, truth, strict=True):
                assert np.array_equal(a, b), (height, width, threads)


def test_sizes_come_and_go():
    """More sizes than are kept, each seen twice, with what the last one left in memory."""
    network = lively(entry("espnetv2_s0_5").build())
    engine = engine_of(network, threads=2)
    for _ in range(2):
        for side in (32, 40, 51, 64, 77, 96):
            assert difference(network, engine, noise(1, side, side + 3)) <= BOUND


def test_denormals_are_zeros():
    """ESPNet v1's maps are full of them; they are neither slow nor do they count."""
    network = lively(entry("espnet_c_p2_q3").build())
    network.backbone.stem.conv.weight.data *= 1e-39
    assert difference(network, engine_of(network), noise(1, 64, 64)) <= BOUND
    assert torch.tensor([1e-40]).item() > 0  # this process still has them


def test_means_of_many_equal_values_keep_their_digits():
    """The gates of a segmenter's skips are means over a whole map: 20,480 pixels here."""
    network = lively(entry("espnetv2_seg_s0_5").build())
    images = torch.full((1, 3, 256, 320), 3.3)
    assert difference(network, engine_of(network), images) <= BOUND


@pytest.mark.parametrize("isa", ["plain", "avx2", "avx512", "neon"])
def test_every_instruction_set(isa, tmp_path):
    network = lively(entry("espnetv2_seg_s1_25").build())  # widths that fill no block
    images = noise(1, 97, 131)
    found = run_with(isa, content_of(fold(network), notes={}), images, tmp_path)
    with torch.inference_mode():
        truth = network(images).numpy()
    assert np.abs(truth - found).max() <= BOUND * np.abs(truth).max()


def test_a_class_map_is_the_largest_logit():
    network = lively(entry("espnetv2_seg_s0_5").build())
    images = noise(2, 97, 131)
    folded = with_decoding(fold(network), task="segmentation", size=None)
    (found,) = NativeEngine.of(folded, threads=2).run(images.numpy())
    assert (found.dtype, found.shape) == (np.uint8, (2, 97, 131))
    with torch.inference_mode():
        truth = network(images).argmax(dim=1).numpy()
    assert (found == truth).mean() >= 0.9999


def test_an_export_is_opened_and_judged(tmp_path):
    loaded = load_network("espnetv2_seg_s0_5.camvid")
    made_here = export(loaded, "native", tmp_path / "out", Settings(size=(96, 128)))
    assert made_here.difference <= BOUND
    assert made_here.agreement == 1.0
    assert made_here.inputs[0].shape == ("batch", 3, "height", "width")
    engine = open_artefact(tmp_path / "out", threads=2)
    assert (engine.name, engine.precision, engine.threads) == ("native", "fp32", 2)
    assert difference(loaded.network, engine, noise(3, 61, 85)) <= BOUND
    model = espnetv2_native.Model(str(made_here.path))
    assert model.metadata("model") == "espnetv2_seg_s0_5"
    assert model.metadata("classes").split("\n")[0] == "sky"


# ---- what does not fit ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def content():
    return content_of(fold(lively(entry("espnetv2_s0_5").build(num_classes=3))), notes={})


def rewritten(content, change):
    """The file with another program."""
    length = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + length])["__metadata__"]
    program = json.loads(metadata["program"])
    change(program, metadata)
    return save(load(content), {**metadata, "program": json.dumps(program)})


def first_conv(program):
    return next(step for step in program["steps"] if step["op"] == "conv")


def test_a_file_cut_anywhere_is_refused(content):
    length = 8 + int.from_bytes(content[:8], "little")
    for end in [0, 1, 7, 8, 9, length - 1, length, length + 1, len(content) - 4, len(content) - 1]:
        with pytest.raises(ValueError, match=r"truncated|shorter|damaged|align"):
            espnetv2_native.Model.of(content[:end])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p, m: m.update(format="espnetv2-native/9"), "version 'espnetv2-native/9'"),
        (lambda p, m: p["steps"][0].update(op="format_disk"), "'format_disk' that is unknown"),
        (lambda p, m: p["steps"][0].update({"in": ["nowhere"]}), "'nowhere' before it is made"),
        (lambda p, m: first_conv(p).update(groups=2), "groups do not divide"),
        (lambda p, m: first_conv(p).update(weight="a999"), "lacks the array 'a999'"),
        (lambda p, m: first_conv(p).update(stride=1e9), "out of its range"),
        (lambda p, m: p["steps"][1].update(out=p["steps"][0]["out"]), "twice"),
        (lambda p, m: first_conv(p).update(bias="a0"), "another shape"),
        (lambda p, m: p.update(channels=2**40), "out of its range"),
        (lambda p, m: p.update(outputs=[]), "gives nothing"),
        (lambda p, m: p.pop("steps"), "lacks 'steps'"),
    ],
)
def test_a_program_that_is_not_sound_is_refused(content, change, said):
    with pytest.raises(ValueError, match=said):
        espnetv2_native.Model.of(rewritten(content, change))


def test_sizes_that_do_not_fit_are_refused(content):
    model = espnetv2_native.Model.of(content)
    for size in [(1, 0, 32), (0, 32, 32), (1, 32, 10**6), (1, 32, 32, 0), (1, 32, 32, 10**6)]:
        with pytest.raises(ValueError, match="must be between"):
            model.open(*size)
    with pytest.raises(ValueError, match="too large"):
        model.open(4096, 30000, 30000)
    context = model.open(1, 32, 32)
    with pytest.raises(ValueError, match="another shape"):
        context.run(np.zeros((1, 3, 32, 33), np.float32))


def test_a_damaged_artefact_is_one_line(tmp_path):
    export(load_network("espnetv2_s0_5.imagenette"), "native", tmp_path / "out", Settings())
    file = tmp_path / "out" / "model.espnetv2"
    content = bytearray(file.read_bytes())
    content[:8] = b"\xff" * 8
    file.write_bytes(content)
    with pytest.raises(UserError, match="export again"):
        open_artefact(tmp_path / "out")


def test_networks_of_others_are_refused():
    with pytest.raises(UserError, match="no backbone StagedBackbone"):
        engine_of(ESPNetv2Seg(mobilenet_v2_backbone(), num_classes=3))
    with pytest.raises(UserError, match="native engine has no Linear"):
        NativeEngine.of(torch.nn.Linear(3, 3), threads=1)
    with pytest.raises(UserError, match="prepared already"):
        NativeEngine.of(torch.nn.Sequential(torch.nn.Identity()), threads=1)


# ---- released weights, real pictures -----------------------------------------------------------


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize(
    "name",
    [
        "espnetv2_seg_s0_5.edgenets_city_512",
        "espnetv2_seg_s1_0.edgenets_voc_256",
        "espnetv2_seg_s2_0.edgenets_voc_256",
        "espnetv2_seg_arxiv_s0_5.espnetv2_city_1024",
        "espnet_p2_q8.camvid",
    ],
)
def test_released_weights_on_real_pictures(name, shared, monkeypatch):
    monkeypatch.setenv("ESPNETV2_WEIGHTS", str(shared / "weights"))
    loaded = load_network(name)
    engine = engine_of(loaded.network, threads=2)
    spec = loaded.preprocessing.resized((256, 320))
    pictures = [spec(one)[None] for one in pictures_in(shared / "data" / "camvid", limit=4)]
    exact = loaded.network.double()  # in floats it is as far from this as the engine is
    found = compare(
        lambda x: [exact(torch.from_numpy(x).double()).detach().numpy()],
        engine.run,
        [(one.numpy(),) for one in pictures],
    )
    assert found.difference <= BOUND
    assert found.agreement >= 0.9999


@pytest.mark.slow
@pytest.mark.data
def test_camvid_in_the_engine_is_camvid_in_torch(shared):
    loaded = load_network("espnetv2_seg_s0_5.camvid")
    judge = Judge("camvid", shared / "data" / "camvid", "test", 60)
    scores = [
        judge.scores(
            one, task=loaded.task, preprocessing=loaded.preprocessing, classes=loaded.classes
        )["mean_iou"]
        for one in (loaded.network, engine_of(loaded.network, threads=2))
    ]
    assert abs(scores[0] - scores[1]) <= 0.01
