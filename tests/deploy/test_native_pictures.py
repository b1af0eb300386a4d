"""Pictures go into the native engine as they are, and answers come out of it."""

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL
import pytest
import torch
from PIL import Image

from deploy.lively import lively
from espnetv2.data.preprocess import CONVENTIONS
from espnetv2.data.voc import bit_palette
from espnetv2.deploy.export import export
from espnetv2.deploy.fold import fold
from espnetv2.deploy.outputs import with_decoding
from espnetv2.deploy.subject import Settings
from espnetv2.deploy.verify import compare_boxes, drawn_pictures, pictures_in
from espnetv2.models.catalog import entry
from espnetv2.weights.load import load_network

native = pytest.importorskip(
    "espnetv2_native", reason="the native engine was not built: no C++ compiler"
)

from espnetv2.deploy.engine_native import NativeEngine  # noqa: E402
from espnetv2.deploy.to_native import content_of  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
SIZES = [(224, 224), (33, 47), (300, 451), (451, 300), (160, 700), (601, 333), (1, 1)]
CENTRED = replace(CONVENTIONS["edgenets-segmentation"], fit="center", crop_share=0.7)


@pytest.fixture(scope="module")
def pictures():
    """Real ones: 512 x 512, 451 x 300 and 960 x 720."""
    return pictures_in(ROOT / "examples" / "pictures", limit=8)


@pytest.fixture(scope="module")
def small():
    return fold(lively(entry("espnetv2_s0_5").build(num_classes=3)))


def model_of(network, spec=None, **notes):
    if spec is not None:
        notes["preprocessing"] = json.dumps(spec.to_json())
    return native.Model.of(content_of(network, notes=notes))


# ---- preparing -----------------------------------------------------------------------------------


_AS_PILLOW = int(PIL.__version__.partition(".")[0]) >= 13
"""Older ones never begin with the columns; bytes are rounded in between."""


def assert_prepared(spec, model, picture, size):
    """At most a grey level apart, and nearly everywhere the same bits."""
    truth = spec.resized(size)(picture).numpy()
    found = model.prepare(np.asarray(picture), *size)
    level = 1 / (spec.unit * np.array(spec.std)[:, None, None] * spec.divisor)
    assert (found.shape, found.dtype) == (truth.shape, truth.dtype)
    late = spec.resize == "plain-late"  # on floats: there are no grey levels to fall into
    assert (np.abs(truth - found) <= level * (1e-3 if late else 1.001)).all()
    if not late:  # other processors than x86 add floats up in another order
        assert (truth == found).mean() >= (0.999 if _AS_PILLOW else 0.8)
    assert np.abs(truth).max() > 0


@pytest.mark.parametrize("name", [*CONVENTIONS, "centred"])
def test_a_picture_is_prepared_as_in_python(name, small, pictures):
    spec = CONVENTIONS.get(name, CENTRED)
    model = model_of(small, spec)
    for picture in pictures:
        for size in SIZES:
            assert_prepared(spec, model, picture, size)
        assert_prepared(spec, model, picture, picture.size[::-1])  # nothing is resized


@pytest.mark.data
@pytest.mark.parametrize("name", CONVENTIONS)
def test_data_sets_are_prepared_as_in_python(name, small, shared):
    spec = CONVENTIONS[name]
    model = model_of(small, spec)
    for folder in ("camvid/images", "coco256/images", "bccd/JPEGImages"):
        for picture in pictures_in(shared / "data" / folder, limit=3):
            for size in [(224, 224), (256, 512), (375, 1242)]:
                assert_prepared(spec, model, picture, size)


def test_rows_that_lie_apart(small, pictures):
    spec = CONVENTIONS["imagenet"]
    model = model_of(small, spec)
    wide = np.asarray(pictures[0])
    part = wide[10:200, 30:330]  # a view
    truth = spec.resized((64, 64))(Image.fromarray(part)).numpy()
    assert np.array_equal(model.prepare(part, 64, 64), truth)


def test_seeing_is_preparing_and_running(pictures):
    loaded = load_network("espnetv2_seg_s0_5.camvid")
    spec = loaded.preprocessing
    folded = with_decoding(fold(loaded.network), task="segmentation", size=None)
    model = model_of(folded, spec, palette=json.dumps(loaded.palette))
    assert model.size == spec.size
    context = model.open(1, 120, 160, 2)
    for picture in pictures:
        (found,) = context.see(np.asarray(picture))
        assert np.array_equal(
            found, context.run(spec.resized((120, 160))(picture)[None].numpy())[0]
        )
        with torch.inference_mode():
            truth = loaded.network(spec.resized((120, 160))(picture)[None]).argmax(1).numpy()
        assert (found == truth).mean() >= 0.999
        assert len(np.unique(found)) > 1
        colours = model.paint(found)
        assert np.array_equal(colours, np.array(loaded.palette, np.uint8)[found])


# ---- answers -------------------------------------------------------------------------------------


def decoded(name, size, **options):
    network = lively(entry(name).build())
    options |= {"task": entry(name).task, "size": size, "detector": network}
    return with_decoding(network, **options), with_decoding(fold(network), **options)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("name", ["espnetv2_s0_5", "shufflenetv1_g3_x0_5"])
def test_probabilities_are_those_of_torch(name, multi_label, pictures):
    truth, folded = decoded(name, None, multi_label=multi_label)
    spec = CONVENTIONS["imagenet"].resized((64, 96))
    images = spec.batch(pictures)
    (found,) = NativeEngine.of(folded, threads=2).run(images.numpy())
    with torch.inference_mode():
        expected = truth(images).numpy()
    assert np.abs(found - expected).max() <= 1e-5 * expected.max()
    assert multi_label or np.abs(found.sum(1) - 1).max() <= 1e-5


@pytest.mark.parametrize("size", [(97, 131), (64, 200), (40, 33), (160, 160)])
def test_boxes_are_those_of_torch(size, pictures):
    truth, folded = decoded("espnetv2_ssd300_s0_5", size)
    images = CONVENTIONS["edgenets-detection"].resized(size).batch(pictures)

    def expected(batch):
        with torch.inference_mode():
            return [part.numpy() for part in truth(torch.from_numpy(batch))]

    outputs = []
    for threads in (1, 2, 5):
        engine = NativeEngine.of(folded, threads=threads)
        likeness = compare_boxes(expected, engine.run, [(images.numpy(),)])
        assert likeness.difference <= 1e-5
        assert likeness.agreement >= 0.99  # ties in suppression are anybody's
        outputs.append(engine.run(images.numpy()))
    for boxes, scores, labels in outputs:
        assert (boxes.shape, scores.shape, labels.shape) == ((3, 200, 4), (3, 200), (3, 200))
        assert (boxes.dtype, labels.dtype) == (np.float32, np.int64)
        assert ((boxes >= 0) & (boxes <= 1)).all()
        assert (np.diff(scores) <= 0).all()
        assert len(np.unique(labels)) > 1
    for others in outputs[1:]:
        assert all(np.array_equal(*pair) for pair in zip(outputs[0], others, strict=True))


def sure_of_background(network):
    """Few boxes remain, so that their number and the zeros behind them can be seen."""
    for head in network.heads:
        head.scores.bias.data.view(-1, network.num_classes)[:, 0] += 6
    return network


def test_where_there_are_few_boxes_zeros_follow(pictures):
    network = sure_of_background(lively(entry("espnetv2_ssd300_s0_5").build(num_classes=4)))
    size = (96, 128)
    images = CONVENTIONS["edgenets-detection"].resized(size).batch(pictures)
    truth = with_decoding(network, task="detection", size=size, detector=network)
    folded = with_decoding(fold(network), task="detection", size=size, detector=network)
    boxes, scores, labels = NativeEngine.of(folded, threads=2).run(images.numpy())
    with torch.inference_mode():
        expected = [part.numpy() for part in truth(images)]
    counts = (expected[1] > 0).sum(1)
    assert ((scores > 0).sum(1) == counts).all()
    assert counts.min() > 0
    assert counts.max() < scores.shape[1]
    assert np.abs(scores - expected[1]).max() <= 1e-5
    for image, count in enumerate(counts):
        assert not any(one[image, count:].any() for one in (boxes, scores, labels))


@pytest.mark.parametrize(
    ("name", "size"), [("espnetv2_s0_5.imagenette", None), ("espnetv2_seg_s0_5.camvid", (96, 128))]
)
def test_an_export_with_decoding_is_compared(name, size, tmp_path, pictures):
    settings = Settings(gives="decoded", size=size, pictures=pictures)
    made = export(load_network(name), "native", tmp_path / "out", settings)
    assert made.difference <= 1e-5
    assert made.agreement >= 0.9999
    model = native.Model(str(made.path))
    assert model.size == made.preprocess().size
    assert (model.metadata("palette") is None) == (made.task == "classification")


def test_a_detector_is_exported_with_decoding(tmp_path, pictures):
    loaded = load_network("espnetv2_s0_5.imagenette")
    network = lively(entry("espnetv2_ssd300_s0_5").build(num_classes=4, smallest_prior=0.06))
    spec = CONVENTIONS["edgenets-detection"].resized((96, 128))
    detector = replace(
        loaded,
        network=network,
        name="espnetv2_ssd300_s0_5",
        task="detection",
        classes=("a", "b", "c"),
        preprocessing=spec,
    )
    settings = Settings(gives="decoded", pictures=pictures)
    made = export(detector, "native", tmp_path / "out", settings)
    assert [one.shape for one in made.outputs] == [
        ("batch", 200, 4),
        ("batch", 200),
        ("batch", 200),
    ]
    assert made.difference <= 1e-5
    assert made.agreement >= 0.99


# ---- the command-line runner ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def runner():
    built = os.environ.get("ESPNETV2_RUN") or shutil.which("espnetv2-run")
    found = [Path(built)] if built else sorted(ROOT.glob("native/build/*/espnetv2-run"))
    if not found:
        pytest.skip("espnetv2-run is not built; set ESPNETV2_RUN to its path")
    return lambda *words: subprocess.run(
        [str(found[0]), *map(str, words)], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    path = tmp_path_factory.mktemp("ppm") / "street.ppm"
    Image.open(ROOT / "examples" / "pictures" / "street.jpg").convert("RGB").save(path)
    return path


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    settings = Settings(gives="decoded", size=(96, 128))
    folder = tmp_path_factory.mktemp("native") / "seg"
    return export(load_network("espnetv2_seg_s0_5.camvid"), "native", folder, settings)


def test_the_runner_paints_a_class_map(runner, street, segmenter, tmp_path):
    done = runner(segmenter.path, street, "--out", tmp_path / "out.ppm", "--threads", 2)
    assert done.returncode == 0, done.stderr
    model = native.Model(str(segmenter.path))
    (truth,) = model.open(1, 96, 128).see(np.asarray(Image.open(street)))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out.ppm")), model.paint(truth)[0])
    lines = dict(reversed(line.split("%  ")) for line in done.stdout.splitlines())
    for index, name in enumerate(segmenter.classes):
        if (share := 100 * (truth == index).mean()) >= 0.51:
            assert abs(float(lines[name]) - share) <= 0.011


def test_the_runner_writes_a_picture_whole_or_not_at_all(runner, street, segmenter, tmp_path):
    done = runner(segmenter.path, street, "--out", "/dev/full")
    assert done.returncode == 2
    assert "/dev/full cannot be written" in done.stderr
    (tmp_path / "out.ppm.part").mkdir()  # stands in the way
    done = runner(segmenter.path, street, "--out", tmp_path / "out.ppm")
    assert done.returncode == 2
    assert not (tmp_path / "out.ppm").exists()


def test_the_runner_names_the_best_classes(runner, street, tmp_path):
    loaded = load_network("espnetv2_s0_5.imagenette")
    made = export(loaded, "native", tmp_path / "out", Settings())
    done = runner(made.path, street)
    with torch.inference_mode():
        shares = loaded.network(loaded.preprocessing(Image.open(street))[None]).softmax(1)[0]
    best, labels = shares.topk(5)
    expected = [
        f"{100 * share:6.2f} %  {loaded.classes[label]}"
        for share, label in zip(best.tolist(), labels.tolist(), strict=True)
    ]
    assert done.stdout.splitlines() == expected


def test_the_runner_takes_each_of_several_labels_for_itself(runner, street, tmp_path):
    loaded = replace(load_network("espnetv2_s0_5.imagenette"), multi_label=True)
    with torch.inference_mode():
        shares = loaded.network(loaded.preprocessing(Image.open(street))[None]).sigmoid()[0]
    best, labels = shares.topk(5)
    expected = [
        f"{100 * share:6.2f} %  {loaded.classes[label]}"
        for share, label in zip(best.tolist(), labels.tolist(), strict=True)
    ]
    for gives in ("raw", "decoded"):
        made = export(loaded, "native", tmp_path / gives, Settings(gives=gives))
        assert runner(made.path, street).stdout.splitlines() == expected


def test_the_runner_lists_and_frames_boxes(runner, street, tmp_path):
    network = sure_of_background(lively(entry("espnetv2_ssd300_s0_5").build(num_classes=4)))
    network.heads[3].scores.bias.data.view(-1, 4)[:, 2] += 8  # some that are sure of "b"
    folded = with_decoding(fold(network), task="detection", size=(96, 128), detector=network)
    spec = CONVENTIONS["edgenets-detection"].resized((96, 128))
    notes = {"preprocessing": json.dumps(spec.to_json()), "classes": "a\nb\nc"}
    (tmp_path / "model").write_bytes(content_of(folded, notes=notes))
    done = runner(tmp_path / "model", street, "--out", tmp_path / "out.ppm")
    assert done.returncode == 0, done.stderr
    picture = np.asarray(Image.open(street))
    model = native.Model(str(tmp_path / "model"))
    boxes, scores, labels = model.open(1, 96, 128).see(picture)
    count = int((scores[0] >= 0.3).sum())
    assert count > 0
    lines = done.stdout.splitlines()
    assert len(lines) == count
    score, rest = lines[0].split(" %  ")
    name, *corners = rest.split()
    assert float(score) == pytest.approx(100 * scores[0, 0], abs=0.006)
    assert name == "abc"[labels[0, 0]]
    pixels = boxes[0, 0] * np.array([960, 720, 960, 720])
    assert np.abs(pixels - np.array(corners, dtype=float)).max() <= 0.5001
    assert (np.asarray(Image.open(tmp_path / "out.ppm")) != picture).any()


def test_the_runner_measures(runner, segmenter):
    done = runner(segmenter.path, "--size", "64x96", "--benchmark", 5, "--profile")
    assert "ms median of 5" in done.stdout.splitlines()[0]
    assert " us  " in done.stdout.splitlines()[1]
    assert " us  " not in runner(segmenter.path, "--benchmark", 5).stdout


def test_what_the_runner_cannot_do_is_one_line(runner, street, segmenter, tmp_path):
    (tmp_path / "text.ppm").write_text("no picture")
    (tmp_path / "short.ppm").write_bytes(b"P6\n# a comment\n40 30\n255\nshort")
    for words, said in [
        ((tmp_path / "none", street), "cannot be opened"),
        ((segmenter.path, tmp_path / "none.ppm"), "cannot be opened"),
        ((segmenter.path, tmp_path / "text.ppm"), "is no binary PPM"),
        ((segmenter.path, tmp_path / "short.ppm"), "is truncated"),
        ((segmenter.path, street, "--size", "64"), "takes HxW"),
        ((segmenter.path, street, "--threads", "none"), "whole number"),
        ((segmenter.path,), "give a picture"),
    ]:
        done = runner(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr
        assert done.stderr.count("\n") == 1


# ---- what does not fit ---------------------------------------------------------------------------


def test_pictures_that_do_not_fit_are_one_line(small, pictures):
    picture = np.asarray(pictures[0])
    bare = model_of(small)
    assert bare.size == (0, 0)
    with pytest.raises(ValueError, match="does not say how pictures are prepared"):
        bare.prepare(picture, 32, 32)
    with pytest.raises(ValueError, match="does not say how pictures are prepared"):
        bare.open(1, 32, 32).see(picture)
    with pytest.raises(ValueError, match="holds no palette"):
        bare.paint(np.zeros((2, 2), np.uint8))
    model = model_of(small, CONVENTIONS["imagenet"])
    for size in [(0, 32), (32, 0), (32, 40000)]:
        with pytest.raises(ValueError, match="must be between"):
            model.prepare(picture, *size)
    with pytest.raises(ValueError, match="must be between"):
        model.prepare(picture[:0], 32, 32)
    overlapping = np.lib.stride_tricks.as_strided(picture, (4, 8, 3), (12, 3, 1))
    with pytest.raises(ValueError, match="stride of a picture must be at least 3 bytes a pixel"):
        model.prepare(overlapping, 32, 32)
    for other in (picture[:, ::2], picture[::-1], picture.transpose(1, 0, 2)[..., :2]):
        with pytest.raises(ValueError, match="a picture must be bytes"):
            model.prepare(other, 32, 32)
    with pytest.raises(ValueError, match="batch of 1"):
        model.open(2, 32, 32).see(picture)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"resize": "cubic"}, "resizes in an unknown way"),
        ({"fit": "tile"}, "fits in an unknown way"),
        ({"order": "grb"}, "unknown order"),
        ({"std": [1, 1, 0]}, "divides by zero"),
        ({"mean": [1, 1]}, "not three of 'mean'"),
        ({"unit": 0}, "no sound 'unit'"),
        ({"crop_share": 1e-9}, "no sound 'crop_share'"),
        ({"size": [0, 4]}, "out of its range"),
    ],
)
def test_preprocessing_that_is_not_sound_is_refused(small, change, said):
    notes = {"preprocessing": json.dumps(CONVENTIONS["imagenet"].to_json() | change)}
    with pytest.raises(ValueError, match=said):
        model_of(small, **notes)


def test_a_palette_that_is_not_sound_is_refused(small):
    with pytest.raises(ValueError, match="more than 256 colours"):
        model_of(small, palette=json.dumps([[0, 0, 0]] * 257))
    with pytest.raises(ValueError, match="not three parts"):
        model_of(small, palette="[[0, 0]]")
    model = model_of(small, palette=json.dumps(bit_palette(256)))
    every = np.arange(256, dtype=np.uint8)
    assert np.array_equal(model.paint(every), np.array(bit_palette(256), np.uint8))


def test_a_drawn_picture_larger_than_any_cache(small):
    (picture,) = drawn_pictures(1, (700, 1900))
    assert_prepared(CENTRED, model_of(small, CENTRED), picture, (97, 640))
