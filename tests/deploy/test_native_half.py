"""The native engine in bfloat16: as near to the train form as that type allows."""

import numpy as np
import pytest
import torch
from safetensors import safe_open

from deploy.converted import FAMILIES
from deploy.isa import run_with
from deploy.lively import lively, parts
from deploy.rounding import distance, noise
from espnetv2.deploy.engines import open_artefact
from espnetv2.deploy.export import export
from espnetv2.deploy.fold import fold
from espnetv2.deploy.gate import Judge
from espnetv2.deploy.outputs import with_decoding
from espnetv2.deploy.subject import Settings
from espnetv2.deploy.verify import compare_boxes
from espnetv2.models.catalog import entry
from espnetv2.weights.load import load_network

native = pytest.importorskip("espnetv2_native", reason="the native engine was not built")

from espnetv2.deploy.engine_native import NativeEngine  # noqa: E402
from espnetv2.deploy.to_native import content_of  # noqa: E402


def engine_of(network, threads=1):
    return NativeEngine.of(fold(network), precision="bf16", threads=threads)


@pytest.mark.parametrize("name", FAMILIES)
def test_no_further_from_float_than_torch_in_bfloat16(name):
    """torch rounds all sums too, and folds nothing."""
    network = lively(entry(name).build())
    short = lively(entry(name).build()).bfloat16()
    for threads, images in [(1, noise(1, 64, 96)), (2, noise(2, 97, 131)), (3, noise(1, 65, 45))]:
        with torch.inference_mode():
            truth = [one.numpy() for one in parts(network(images))]
            rounded = [one.float().numpy() for one in parts(short(images.bfloat16()))]
        found = engine_of(network, threads).run(images.numpy())
        for expected, other, own in zip(truth, rounded, found, strict=True):
            assert own.shape == expected.shape
            assert 1e-5 < distance(own, expected) <= 1.2 * distance(other, expected)


@pytest.mark.parametrize("isa", ["plain", "avx2", "avx512", "amx", "neon"])
def test_every_instruction_set(isa, tmp_path):
    network = lively(entry("espnetv2_seg_s1_25").build())  # widths that fill no block
    images = noise(2, 97, 131)
    content = content_of(fold(network), precision="bf16", notes={})
    found = run_with(isa, content, images, tmp_path)
    with torch.inference_mode():
        truth = network(images).numpy()
        short = lively(entry("espnetv2_seg_s1_25").build()).bfloat16()
        rounded = short(images.bfloat16()).float().numpy()
    assert 1e-5 < distance(found, truth) <= 1.2 * distance(rounded, truth)


def test_the_same_bits_for_every_thread_count():
    network = fold(lively(entry("espnetv2_seg_s1_0").build()))
    images = noise(2, 113, 87).numpy()
    truth = NativeEngine.of(network, precision="bf16", threads=1).run(images)[0]
    for threads in (2, 3, 7):
        engine = NativeEngine.of(network, precision="bf16", threads=threads)
        for _ in range(3):
            assert np.array_equal(truth, engine.run(images)[0])


@pytest.mark.parametrize("name", ["espnetv2_s0_5", "espnetv2_seg_arxiv_s0_5"])
def test_what_it_says_is_not_rounded(name):
    """Or many logits of alike classes would be equal."""
    (found,) = engine_of(lively(entry(name).build())).run(noise(1, 64, 96).numpy())
    found = torch.from_numpy(found)
    assert (found.bfloat16().float() == found).float().mean() < 0.1


def test_answers_are_decoded_from_halves():
    for name, size in [("espnetv2_seg_s0_5", (97, 131)), ("espnetv2_s0_5", (64, 96))]:
        network, task, images = lively(entry(name).build()), entry(name).task, noise(2, *size)
        short = with_decoding(fold(network), task=task, size=None)
        (found,) = NativeEngine.of(short, precision="bf16", threads=2).run(images.numpy())
        (raw,) = engine_of(network, 2).run(images.numpy())
        if task == "segmentation":
            assert (found == raw.argmax(1)).mean() >= 0.9999
        else:
            assert np.allclose(found, torch.from_numpy(raw).softmax(1).numpy(), atol=1e-6)


def test_boxes_are_decoded_from_halves():
    size, network = (160, 160), lively(entry("espnetv2_ssd300_s0_5").build())
    images = noise(2, *size).numpy()
    scores, offsets = engine_of(network, 2).run(images)

    class Said(torch.nn.Module):
        def forward(self, image):
            return type(network(image))(torch.from_numpy(scores), torch.from_numpy(offsets))

    options = {"task": "detection", "size": size, "detector": network}
    with torch.inference_mode():
        boxes = with_decoding(Said(), **options)(torch.from_numpy(images))
    decoded = with_decoding(fold(network), **options)
    engine = NativeEngine.of(decoded, precision="bf16", threads=2)
    found = compare_boxes(lambda _: [one.numpy() for one in boxes], engine.run, [(images,)])
    assert found.difference <= 1e-5
    assert found.agreement >= 0.99  # ties in suppression are anybody's


def test_a_file_of_halves_is_half_as_large(tmp_path):
    loaded = load_network("espnetv2_s0_5.imagenette")
    made = {
        precision: export(loaded, "native", tmp_path / precision, Settings(precision=precision))
        for precision in ("fp32", "bf16")
    }
    assert made["bf16"].bytes < 0.65 * made["fp32"].bytes
    assert (made["bf16"].precision, made["bf16"].computes_in) == ("bf16", "bf16")
    engine = open_artefact(tmp_path / "bf16", threads=2)
    assert (engine.name, engine.precision) == ("native", "bf16")
    with safe_open(made["bf16"].path, framework="pt") as file:
        kinds = {file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118
    assert kinds == {torch.bfloat16, torch.float32}


def test_another_precision_is_one_line():
    content = content_of(fold(lively(entry("espnetv2_s0_5").build())), precision="fp8", notes={})
    with pytest.raises(ValueError, match="of precision 'fp8', which this engine does not have"):
        native.Model.of(content)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["espnet_p2_q8.camvid", "espnetv2_seg_s0_5.camvid"])
def test_camvid_loses_a_tenth_of_a_point_at_most(name, shared, monkeypatch):
    monkeypatch.setenv("ESPNETV2_WEIGHTS", str(shared / "weights"))
    loaded = load_network(name)
    judge = Judge("camvid", shared / "data" / "camvid", "test", None)
    scores = [
        judge.scores(
            one, task=loaded.task, preprocessing=loaded.preprocessing, classes=loaded.classes
        )["mean_iou"]
        for one in (
            NativeEngine.of(fold(loaded.network), threads=2),
            engine_of(loaded.network, threads=2),
        )
    ]
    assert scores[1] >= scores[0] - 0.1


@pytest.mark.slow
@pytest.mark.data
def test_imagenette_loses_a_tenth_of_a_point_at_most(shared):
    loaded = load_network("espnetv2_s0_5.imagenette")
    judge = Judge("imagefolder", shared / "data" / "imagenette128", "val", None)
    scores = [
        judge.scores(
            one, task=loaded.task, preprocessing=loaded.preprocessing, classes=loaded.classes
        )
        for one in (loaded.network, engine_of(loaded.network, threads=2))
    ]
    before, after = (next(iter(one.values())) for one in scores)
    assert after >= before - 0.1
