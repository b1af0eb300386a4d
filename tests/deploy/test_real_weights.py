"""Every task in every runtime, on real pictures and words: what is exported is what was trained.

Official weights where they exist here, ours where we have some, distinct random ones elsewhere.
"""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from deploy.lively import parts
from espnetv2.deploy.engines import open_artefact
from espnetv2.deploy.export import export
from espnetv2.deploy.language_step import LanguageStep
from espnetv2.deploy.lively import make_lively
from espnetv2.deploy.outputs import with_decoding
from espnetv2.deploy.subject import Settings
from espnetv2.deploy.targets import TARGETS
from espnetv2.deploy.verify import pictures_in
from espnetv2.layers.conv import resize
from espnetv2.models.catalog import entry
from espnetv2.profiling.benchmark import network_of
from espnetv2.weights.load import load_network

pytestmark = [pytest.mark.slow, pytest.mark.data, pytest.mark.timeout(1800)]

RUNTIMES = ("onnx", "openvino", "executorch")
LARGEST = 1e-4
"""Relative difference to the train form that fp32 may have."""
SAME = 0.9999
"""Share of equal decisions."""
STEPS = 20
"""Words that a language model reads one by one, its memory handed on by the engine itself."""


@dataclass(frozen=True)
class Row:
    """What is exported, and what it looks at."""

    weights: str
    pictures: str
    size: tuple[int, int]
    others: tuple[tuple[int, int], ...] = ((160, 224), (257, 321))


ROWS = {
    "classifier": Row("espnetv2_s0_5.imagenette", "imagenette128/val", (224, 224)),
    "wide classifier": Row("espnetv2_s2_0", "imagenette128/val", (224, 224)),
    "multi-label": Row("espnetv2_s0_5.imagenette", "coco256/images/val2017", (224, 224)),
    "our segmenter": Row("espnetv2_seg_s0_5.camvid", "camvid/images/test", (360, 480)),
    "segmenter": Row("espnetv2_seg_s2_0.edgenets_city_512", "camvid/images/test", (256, 512)),
    "voc segmenter": Row(
        "espnetv2_seg_s1_0.edgenets_voc_256", "voc2012_seg/val_squashed274/images", (256, 256)
    ),
    "arxiv segmenter": Row(
        "espnetv2_seg_arxiv_s1_0.espnetv2_city_1024", "cityscapes/leftImg8bit", (256, 512)
    ),
    "detector": Row("espnetv2_ssd300_s0_5", "bccd/JPEGImages", (300, 300)),
    "espnet": Row("espnet_p2_q8.camvid", "camvid/images/test", (360, 480)),
    "espnet-c": Row("espnet_c_p2_q8.cityscapes", "camvid/images/test", (256, 512)),
    "shufflenet": Row("shufflenetv1_g3_x1_0", "imagenette128/val", (224, 224)),
}


@pytest.fixture
def loaded_of(shared, monkeypatch):
    """A row's network, and up to four of its pictures."""
    monkeypatch.setenv("ESPNETV2_WEIGHTS", str(shared / "weights"))

    def load(kind):
        row = ROWS[kind]
        if kind == "multi-label":  # a trained trunk, and a head for 80 classes on top
            loaded = load_network(row.weights, num_classes=80)
        elif "." in row.weights:
            loaded = load_network(row.weights)
        else:
            loaded = network_of(row.weights)
        return loaded, pictures_in(shared / "data" / row.pictures, limit=4)

    return load


def needs(target):
    for package in TARGETS[target].needs:
        pytest.importorskip(package, reason=f"the extra `{TARGETS[target].extra}` is missing")


def decisions(kind, outputs, size):
    """Of pictures, pixels or priors; of every class where they may all be true."""
    if kind == "multi-label":
        return outputs[0] > 0
    if outputs[0].ndim == 4:  # ESPNet-C answers at an eighth, and decides at full size
        return resize(torch.from_numpy(outputs[0]), size).numpy().argmax(1)
    return outputs[0].argmax(2 if kind == "detector" else 1)


def assert_same(kind, network, engine, batches):
    equal = total = 0
    for batch in batches:
        with torch.inference_mode():
            truth = [one.numpy() for one in parts(network(batch))]
        found = engine.run_batch(batch.numpy())
        assert len(truth) == len(found)
        for one, other in zip(truth, found, strict=True):
            assert one.shape == other.shape
            assert np.abs(one - other).max() <= LARGEST * np.abs(one).max()
        size = tuple(batch.shape[-2:])
        same = decisions(kind, truth, size) == decisions(kind, found, size)
        equal, total = equal + same.sum(), total + same.size
    assert equal >= SAME * total


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("target", RUNTIMES)
def test_a_fixed_size_on_real_pictures(target, kind, loaded_of, tmp_path):
    needs(target)
    (loaded, pictures), size = loaded_of(kind), ROWS[kind].size
    settings = Settings(precision="fp32", size=size, pictures=pictures)
    artefact = export(loaded, target, tmp_path / "made", settings)
    assert (artefact.size, artefact.batch, artefact.computes_in) == (size, 1, "fp32")
    assert artefact.verified.startswith(f"{len(pictures)} pictures in ")
    spec, engine = artefact.preprocess(), open_artefact(tmp_path / "made", threads=1)
    assert engine.precision == "fp32"  # OpenVINO would take bf16 of its own accord
    assert_same(kind, loaded.network, engine, [spec.batch([one]) for one in pictures])


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("target", RUNTIMES)
def test_free_sizes_and_batches_on_real_pictures(target, kind, loaded_of, tmp_path):
    needs(target)
    (loaded, pictures), row = loaded_of(kind), ROWS[kind]
    settings = Settings(precision="fp32", size=row.size, dynamic=True, pictures=pictures[:1])
    artefact = export(loaded, target, tmp_path / "made", settings)
    assert (artefact.size, artefact.batch, artefact.dynamic) == (None, None, True)
    engine = open_artefact(tmp_path / "made", threads=1)
    assert engine.precision == "fp32"
    shapes = [(1, row.size), (2, row.others[0]), (1, row.others[1]), (3, row.others[0])]
    batches = [loaded.preprocessing.resized(size).batch(pictures[:n]) for n, size in shapes]
    assert_same(kind, loaded.network, engine, batches)


@pytest.mark.parametrize("takes", ["input", "pixels"])
@pytest.mark.parametrize("target", RUNTIMES)
def test_a_detector_with_decoding_and_suppression(target, takes, loaded_of, tmp_path):
    needs(target)
    (loaded, pictures), size = loaded_of("detector"), ROWS["detector"].size
    settings = Settings(
        precision="fp32", size=size, takes=takes, gives="decoded", pictures=pictures
    )
    artefact = export(loaded, target, tmp_path / "made", settings)
    assert artefact.difference <= LARGEST
    assert artefact.agreement >= 0.98
    assert [port.name for port in artefact.outputs] == ["boxes", "scores", "labels"]
    engine, spec = open_artefact(tmp_path / "made", threads=1), artefact.preprocess()
    truth = with_decoding(loaded.network, task="detection", size=size, detector=loaded.network)
    for picture in pictures:
        with torch.inference_mode():
            expected = [one[0].numpy() for one in truth.eval()(spec.batch([picture]))]
        given = spec.pixels(picture) if takes == "pixels" else spec(picture)
        kind = artefact.inputs[0].dtype
        found = [one[0] for one in engine.run(given[None].numpy().astype(kind))]
        assert_same_boxes(expected, found)


def assert_same_boxes(expected, found):
    """Equal boxes, in any order; the last digit of an overlap may decide about one in fifty."""
    sure = (expected[1] > 0).sum()
    assert sure > 20
    missing = 0
    for box, score, label in zip(*(one[:sure] for one in expected), strict=True):
        near = np.abs(found[0] - box).max(1) <= LARGEST
        near &= (np.abs(found[1] - score) <= LARGEST) & (found[2] == label)
        missing += not near.any()
    assert missing <= sure / 50


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("target", RUNTIMES)
def test_a_language_model_reads_on(target, dynamic, shared, tmp_path):
    needs(target)
    words = (shared / "data/ptb/ptb.valid.txt").read_text().split()
    known = {word: place for place, word in enumerate(sorted(set(words)))}
    loaded = language_model(known)
    export(loaded, target, tmp_path / "made", Settings(precision="fp32", dynamic=dynamic))
    engine = open_artefact(tmp_path / "made", threads=1)
    assert (engine.precision, engine.artefact.dynamic) == ("fp32", dynamic)
    step, texts = LanguageStep(loaded.network).eval(), 3 if dynamic else 1
    memory = list(step.beginning(texts))
    kept, equal = [one.numpy() for one in memory], 0
    for place in range(STEPS):
        tokens = torch.tensor([[known[words[1000 * text + place]] for text in range(texts)]])
        with torch.inference_mode():
            truth, *memory = step(tokens, *memory)
        found, *kept = engine.run(tokens.numpy(), *kept)
        assert found.shape == truth.shape == (1, texts, len(known))
        assert np.abs(truth.numpy() - found).max() <= LARGEST * truth.abs().max()
        equal += (truth.numpy().argmax(2) == found.argmax(2)).sum()
    assert equal == STEPS * texts


def language_model(known):
    torch.manual_seed(0)
    network = make_lively(entry("eru_lm_7m").build(num_classes=len(known)))
    classifier = network_of("espnetv2_s0_5")
    return replace(
        classifier, network=network, name="eru_lm_7m", task="language", classes=tuple(known)
    )
