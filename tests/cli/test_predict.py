"""`espnetv2 predict`: files, lines, JSON and exit codes."""

import json

import numpy as np
import pytest
from PIL import Image
from torch import nn, zeros
from typer.testing import CliRunner

from espnetv2.cli.app import app
from espnetv2.data.preprocess import CONVENTIONS, Preprocessing
from espnetv2.errors import UserError
from espnetv2.models.espnetv2_ssd import RawDetections
from espnetv2.predict import predictor as module
from espnetv2.tasks.detect import priors
from espnetv2.weights.load import Loaded

av = pytest.importorskip("av")

NAMES = ("grass", "road", "sky")
COLOURS = ((0, 255, 0), (9, 9, 9), (0, 0, 255))


class Brightest(nn.Module):
    def forward(self, x):
        return x[:, (1, 0, 2)]


class Mean(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))[:, (1, 0, 2)]


class OneBox(nn.Module):
    def forward(self, x):
        scores = zeros(len(x), len(priors((300, 300))), 4)
        scores[..., 0] = 20
        scores[:, 100, 2] = 30
        return RawDetections(scores, zeros(*scores.shape[:2], 4))


@pytest.fixture(autouse=True)
def _stand_ins(monkeypatch):
    plain = Preprocessing(mean=(0, 0, 0), std=(1, 1, 1))
    boxed = CONVENTIONS["edgenets-detection"].resized((300, 300))
    models = {
        "segmenter": Loaded(Brightest(), "segmenter", "segmentation", NAMES, COLOURS, plain, ""),
        "classifier": Loaded(
            Mean(), "classifier", "classification", NAMES, None, CONVENTIONS["imagenet"], ""
        ),
        "detector": Loaded(OneBox(), "detector", "detection", NAMES, None, boxed, ""),
    }
    real = module.load_network
    monkeypatch.setattr(module, "load_network", lambda name: models.get(str(name)) or real(name))


def run(*words):
    result = CliRunner().invoke(app, ["predict", *map(str, words)])
    if isinstance(result.exception, UserError):
        assert "\n" not in str(result.exception)
    elif not isinstance(result.exception, SystemExit | None):
        raise result.exception
    return result


def picture(path, size=(60, 40), colour=(0, 200, 0)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def clip(path, count=5, size=(64, 48), rate=10):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for _ in range(count):
            frame = av.VideoFrame.from_image(Image.new("RGB", size, (0, 200, 0)))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_segmentation_writes_mask_overlay_and_shares(tmp_path):
    result = run("segmenter", picture(tmp_path / "x.png"), "--out", tmp_path / "out")
    assert result.exit_code == 0
    assert "x.png: grass 100%" in result.stdout
    assert "1 picture" in result.stdout
    assert names(tmp_path / "out") == ["x.json", "x_mask.png", "x_overlay.jpg"]
    with Image.open(tmp_path / "out" / "x_mask.png") as mask:
        assert mask.mode == "P"
        assert mask.size == (60, 40)
        assert not np.asarray(mask).any()
        assert mask.getpalette()[:3] == [0, 255, 0]
    record = json.loads((tmp_path / "out" / "x.json").read_text())
    assert record["shares"] == {"grass": 1.0}
    assert (record["height"], record["width"]) == (40, 60)


def test_opacity_reaches_the_drawing(tmp_path):
    source = picture(tmp_path / "x.png", size=(400, 300), colour=(200, 0, 0))
    for opacity, red in (("0", 200), ("1", 9)):
        run("segmenter", source, "--out", tmp_path, "--opacity", opacity)
        with Image.open(tmp_path / "x_overlay.jpg") as overlay:
            assert abs(overlay.getpixel((380, 20))[0] - red) < 12


def test_a_classification_writes_its_top(tmp_path):
    source = picture(tmp_path / "x.jpg", size=(300, 300))
    result = run("classifier", source, "--out", tmp_path / "out", "--top", 2)
    assert "grass" in result.stdout
    assert names(tmp_path / "out") == ["x.json", "x_labels.jpg"]
    record = json.loads((tmp_path / "out" / "x.json").read_text())
    assert record["top"][0]["label"] == "grass"
    assert len(record["top"]) == 2


def test_a_detection_writes_boxes(tmp_path):
    source = picture(tmp_path / "x.jpg", size=(300, 300))
    result = run("detector", source, "--out", tmp_path / "out")
    assert "1 road" in result.stdout
    assert names(tmp_path / "out") == ["x.json", "x_boxes.jpg"]
    with Image.open(tmp_path / "out" / "x_boxes.jpg") as drawn:
        assert len(np.unique(np.asarray(drawn).reshape(-1, 3), axis=0)) > 20


def test_equal_names_from_two_folders_both_survive(tmp_path):
    one, two = picture(tmp_path / "a" / "x.png"), picture(tmp_path / "b" / "x.png")
    run("segmenter", one, two, "--out", tmp_path / "out")
    assert len(names(tmp_path / "out")) == 6


def test_a_bad_picture_among_many_is_reported_and_the_others_go_on(tmp_path):
    folder = tmp_path / "in"
    picture(folder / "a.png")
    (folder / "b.png").write_bytes(b"no picture")
    picture(folder / "c.png")
    result = run("segmenter", folder, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "b.png" in result.stderr
    assert "1 could not be read" in result.stdout
    assert {"a.json", "c.json"} < set(names(tmp_path / "out"))


@pytest.mark.parametrize("suffix", ["png", "mp4"])
def test_a_single_bad_input_writes_nothing(tmp_path, suffix):
    (tmp_path / f"x.{suffix}").write_bytes(b"neither picture nor video")
    result = run("segmenter", tmp_path / f"x.{suffix}", "--out", tmp_path / "out")
    assert isinstance(result.exception, UserError)
    assert not result.stdout
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--overlap", "32"], "--tile"),
        (["--size", "12by9"], "HEIGHTxWIDTH"),
        (["--size", "8x8"], "at least 32"),
        (["--tile", "64", "--overlap", "60"], "overlap"),
        (["--device", "gpu"], "device"),
    ],
)
def test_senseless_options_are_refused_before_anything_is_written(tmp_path, words, hint):
    result = run("segmenter", picture(tmp_path / "x.png"), "--out", tmp_path / "out", *words)
    assert hint in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_is_a_file_is_refused(tmp_path):
    source = picture(tmp_path / "x.png")
    assert "is a file" in str(run("segmenter", source, "--out", source).exception)


def test_tiles_are_for_segmentation(tmp_path):
    source = picture(tmp_path / "x.png")
    result = run("classifier", source, "--out", tmp_path / "out", "--tile", 64)
    assert "for segmentation" in str(result.exception)
    result = run("segmenter", source, "--out", tmp_path / "out", "--tile", 32, "--overlap", 0)
    assert result.exit_code == 0


def test_json_is_one_document_and_errors_go_to_stderr(tmp_path):
    folder = tmp_path / "in"
    picture(folder / "a.png")
    (folder / "b.png").write_bytes(b"")
    result = run("segmenter", folder, "--out", tmp_path / "out", "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == 2
    assert document["looks"] == 1
    assert document["results"][0]["shares"] == {"grass": 1.0}
    assert "empty" in document["errors"][0]["message"]


@pytest.mark.parametrize("model", ["segmenter", "classifier", "detector"])
def test_a_video_becomes_a_video_and_a_summary(tmp_path, model):
    result = run(model, clip(tmp_path / "x.mp4"), "--out", tmp_path / "out", "--batch-size", 2)
    assert result.exit_code == 0
    assert names(tmp_path / "out") == ["x.json", "x.mp4"]
    record = json.loads((tmp_path / "out" / "x.json").read_text())
    assert record["frames"] == 5
    found = {
        "segmenter": {"mean_shares": {"grass": 1.0}},
        "classifier": {"frames_by_best": {"grass": 5}},
        "detector": {"boxes": {"road": 5}, "frames_with": {"road": 5}},
    }[model]
    assert found.items() <= record.items()
    with av.open(str(tmp_path / "out" / "x.mp4")) as written:
        stream = written.streams.video[0]
        assert (stream.frames, stream.width, stream.height) == (5, 64, 48)
        assert stream.average_rate == 10


def test_limit_counts_pictures_and_frames(tmp_path):
    folder = tmp_path / "in"
    for name in "abc":
        picture(folder / f"{name}.png")
    clip(folder / "v.mp4")
    result = run("segmenter", folder, "--out", tmp_path / "out", "--limit", 2, "--json")
    document = json.loads(result.stdout)
    assert document["looks"] == 4
    assert document["results"][-1]["frames"] == 2


def test_results_beside_the_source_do_not_replace_it(tmp_path):
    before = clip(tmp_path / "x.mp4").read_bytes()
    run("segmenter", tmp_path / "x.mp4", "--out", tmp_path)
    assert (tmp_path / "x.mp4").read_bytes() == before
    assert (tmp_path / "x-2.mp4").exists()


def test_stopping_a_video_leaves_nothing(tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("espnetv2.predict.clip.Totals.add", stop)
    CliRunner().invoke(
        app, ["predict", "segmenter", str(clip(tmp_path / "x.mp4")), "--out", str(tmp_path / "out")]
    )
    assert not (tmp_path / "out").exists() or not names(tmp_path / "out")


@pytest.mark.data
@pytest.mark.slow
def test_real_video_and_pictures(tmp_path, shared):
    weights = shared / "weights" / "edgenets"
    road = shared / "data" / "video" / "road_1280x720.mp4"
    result = run(
        weights / "espnetv2_s_1.0_city_512x256.pth", road, "--limit", 3, "--out", tmp_path, "--json"
    )
    shares = json.loads(result.stdout)["results"][0]["mean_shares"]
    assert set(list(shares)[:3]) == {"road", "sky", "vegetation"}
    pictures = shared / "data" / "voc2012_seg" / "fullres10" / "images"
    result = run(
        weights / "espnetv2_s_0.5_pascal_256x256.pth", pictures, "--limit", 2, "--out", tmp_path
    )
    assert "aeroplane" in result.stdout
    assert result.exit_code == 0
