"""Prediction as a job over Ray Data: every picture once, whatever happens in between."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

import tiny_sets
from espnetv2.cli.app import app
from espnetv2.data.preprocess import CONVENTIONS, Preprocessing
from espnetv2.errors import UserError
from espnetv2.models.espnetv2_ssd import RawDetections
from espnetv2.predict import cluster
from espnetv2.predict.job import JOB, Job, open_job
from espnetv2.predict.media import find_pictures, find_sources
from espnetv2.predict.parquet import Settings, count_rows, look_up, write_part
from espnetv2.predict.predictor import load
from espnetv2.tasks.detect import priors
from espnetv2.weights.files import Header, write_safetensors
from espnetv2.weights.load import Loaded, create_model

parquet = pytest.importorskip("pyarrow.parquet")

NAMES = ("grass", "road", "sky")
COLOURS = ((0, 255, 0), (9, 9, 9), (0, 0, 255))


class Brightest(nn.Module):
    def forward(self, x):
        return x[:, (1, 0, 2)]


class Mean(nn.Module):
    """A classifier of the mean colour that cannot bear white."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, x):
        if x.mean((1, 2, 3)).max() > 2:
            raise RuntimeError("out of\nmemory")
        return self.factor * x.mean((2, 3))[:, (1, 0, 2)]


class OneBox(nn.Module):
    def forward(self, x):
        scores = torch.zeros(len(x), len(priors((300, 300))), 4)
        scores[..., 0] = 20
        scores[:, 100, 2] = 30
        return RawDetections(scores, torch.zeros(*scores.shape[:2], 4))


PLAIN = Preprocessing(mean=(0, 0, 0), std=(1, 1, 1))
BOXED = CONVENTIONS["edgenets-detection"].resized((300, 300))
SEGMENTER = Loaded(Brightest(), "segmenter", "segmentation", NAMES, COLOURS, PLAIN, "")
CLASSIFIER = Loaded(
    Mean(), "classifier", "classification", NAMES, None, CONVENTIONS["imagenet"], ""
)
DETECTOR = Loaded(OneBox(), "detector", "detection", NAMES, None, BOXED, "")


def pictures(folder, count, *, size=(48, 40)):
    return [str(tiny_sets.picture(folder / f"{i}.png", seed=i, size=size)) for i in range(count)]


def colour(path, value, size=(20, 10)):
    Image.new("RGB", size, value).save(path)
    return str(path)


def looked_up(loaded, paths, *, batch_size=1, **settings):
    settings = Settings(**settings)
    return look_up(settings.predictor(loaded), paths, settings, batch_size=batch_size)


def rows_of(out):
    """Every row, as a reader of the whole folder sees them."""
    return parquet.read_table(out).to_pylist()


# without Ray


def test_blocks_cut_the_paths_and_only_whole_parts_count_as_done(tmp_path):
    job = Job(tmp_path, tuple(f"/p/{i}.jpg" for i in range(10)), 4)
    assert len(job) == 3
    assert sum((job.block(n) for n in range(3)), ()) == job.paths
    assert [len(job.block(n)) for n in range(3)] == [4, 4, 2]
    assert job.open_parts() == [0, 1, 2]
    for number in range(3):
        rows = [{"path": path} for path in job.block(number)]
        write_part(rows, "classification", job.part(number))
    assert job.open_parts() == []
    first = job.part(0)
    first.write_bytes(first.read_bytes()[:-20])
    write_part([{"path": "/p/8.jpg"}], "classification", job.part(2))
    assert job.open_parts() == [0, 2]
    assert count_rows(tmp_path / "none.parquet") is None


@pytest.mark.parametrize(
    ("word", "change"),
    [
        ("inputs", {"paths": ["/p/1.jpg"]}),
        ("settings", {"settings": Settings(top=2)}),
        ("part size", {"part_size": 3}),
        ("weights", {"loaded": replace(CLASSIFIER, network=Mean().requires_grad_(False))}),
        ("model and weights and task", {"loaded": SEGMENTER}),
    ],
)
def test_another_job_in_the_same_folder_is_refused_in_one_line(tmp_path, word, change):
    paths = ["/p/1.jpg", "/p/2.jpg"]
    usual = {"loaded": CLASSIFIER, "paths": paths, "settings": Settings(), "part_size": 2}
    assert open_job(tmp_path, **usual) == open_job(tmp_path, **usual)
    if word == "weights":
        change["loaded"].network.factor.add_(1)
    before = (tmp_path / JOB).read_bytes()
    with pytest.raises(UserError, match=f"holds a job with other {word}") as caught:
        open_job(tmp_path, **usual | change)
    assert "\n" not in str(caught.value)
    assert (tmp_path / JOB).read_bytes() == before


def test_parts_of_an_unknown_job_are_left_alone(tmp_path):
    write_part([{"path": "x"}], "classification", tmp_path / "part-00000.parquet")
    with pytest.raises(UserError, match=f"has parts but no {JOB}"):
        open_job(tmp_path, CLASSIFIER, ["/p/1.jpg"], Settings())
    (tmp_path / JOB).write_text("[]")
    with pytest.raises(UserError, match="cannot be read"):
        open_job(tmp_path, CLASSIFIER, ["/p/1.jpg"], Settings())


def test_a_segmentation_is_shares_and_a_mask_in_png(tmp_path):
    paths = [colour(tmp_path / "x.png", (0, 200, 0)), *pictures(tmp_path, 1)]
    write_part(looked_up(SEGMENTER, paths), "segmentation", tmp_path / "part-00000.parquet")
    green, noise = rows_of(tmp_path / "part-00000.parquet")
    assert green == {"path": paths[0], "error": None, "shares": [("grass", 1.0)]} | {
        "mask": green["mask"]
    }
    own = Settings().predictor(SEGMENTER)(paths[1])
    assert noise["shares"] == list(own.shares.items())
    with Image.open(io.BytesIO(noise["mask"])) as mask:
        assert mask.mode == "P"
        assert np.array_equal(np.asarray(mask), own.mask)
        assert tuple(mask.getpalette()[:3]) == COLOURS[0]


def test_tiles_are_for_segmentation_and_reach_it(tmp_path, monkeypatch):
    paths = pictures(tmp_path, 1, size=(90, 70))
    asked = []
    real = type(Settings().predictor(SEGMENTER)).segment_tiled

    def noting(self, image, **options):
        asked.append(options)
        return real(self, image, **options)

    monkeypatch.setattr("espnetv2.predict.predictor.Predictor.segment_tiled", noting)
    assert looked_up(SEGMENTER, paths, tile=64, overlap=32)[0]["mask"]
    assert asked == [{"tile": 64, "overlap": 32}]
    with pytest.raises(UserError, match="tiles are for segmentation"):
        Settings(tile=64).predictor(CLASSIFIER)


def test_a_detection_is_boxes_labels_and_scores(tmp_path):
    paths = pictures(tmp_path, 2)
    write_part(looked_up(DETECTOR, paths, batch_size=2), "detection", tmp_path / "p.parquet")
    for row, path in zip(rows_of(tmp_path / "p.parquet"), paths, strict=True):
        own = Settings().predictor(DETECTOR)(path)
        assert row["path"] == path
        assert row["labels"] == ["road"]
        assert np.array_equal(np.float32(row["boxes"]), own.boxes)
        assert np.array_equal(np.float32(row["scores"]), own.scores)


def test_a_picture_that_fails_has_its_error_and_spoils_no_other(tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"\xff\xd8\xff not much")
    paths = [
        colour(tmp_path / "green.png", (0, 200, 0)),
        str(bad),
        colour(tmp_path / "white.png", (255, 255, 255)),
        str(tmp_path / "none.png"),
        colour(tmp_path / "blue.png", (0, 0, 200)),
    ]
    write_part(
        looked_up(CLASSIFIER, paths, batch_size=5, top=1),
        "classification",
        tmp_path / "part.parquet",
    )
    rows = rows_of(tmp_path / "part.parquet")
    assert [row["path"] for row in rows] == paths
    assert [row["labels"] for row in rows] == [["grass"], None, None, None, ["sky"]]
    assert rows[0]["error"] is rows[4]["error"] is None
    assert "bad.jpg: " in rows[1]["error"]
    assert rows[2]["error"] == f"{paths[2]}: RuntimeError (out of memory)"
    assert "no such file" in rows[3]["error"]


def test_a_network_that_never_works_is_no_fault_of_the_pictures(tmp_path):
    white = colour(tmp_path / "white.png", (255, 255, 255))
    with pytest.raises(RuntimeError, match="memory"):
        looked_up(CLASSIFIER, [white, str(tmp_path / "none.png")])


def test_a_name_that_is_no_utf8_is_spelt_out(tmp_path):
    path = os.fsdecode(bytes(tmp_path) + b"/caf\xe9.png")
    rows = looked_up(CLASSIFIER, [colour(path, (0, 200, 0))])
    write_part(rows, "classification", tmp_path / "p.parquet")
    assert rows_of(tmp_path / "p.parquet")[0]["path"] == f"{tmp_path}/caf\\xe9.png"


def test_a_worker_writes_parts_and_gives_up_one_that_kills(tmp_path):
    paths = pictures(tmp_path, 3)
    worker = cluster._Worker(tmp_path, CLASSIFIER, Settings(), "cpu", 2)
    blocks = {
        "file": np.array(["part-00007.parquet"]),
        "paths": np.array(["\0".join(paths).encode()]),
        "pictures": np.array([3]),
    }
    assert worker(blocks) == {"pictures": blocks["pictures"], "failure": [""]}
    assert [row["path"] for row in rows_of(tmp_path / "part-00007.parquet")] == paths
    tries = tmp_path / ".part-00007.parquet.tries"
    assert not tries.exists()
    tries.write_bytes(b"." * cluster.TRIES)
    assert "part-00007.parquet: its worker was killed 3 times" in worker(blocks)["failure"][0]
    tries.unlink()
    blocks["paths"] = np.array([colour(tmp_path / "white.png", (255, 255, 255)).encode()])
    assert worker(blocks)["failure"] == ["part-00007.parquet: RuntimeError, out of memory"]


def test_actors_fit_what_is_there():
    def asked(device, workers, parts, **there):
        ray = SimpleNamespace(cluster_resources=lambda: there)
        return cluster._resources(ray, device, workers, parts)

    assert asked("cpu", None, 99, CPU=8.0) == {"workers": 8, "num_cpus": 1, "num_gpus": 0}
    assert asked("cpu", None, 3, CPU=8.0)["workers"] == 3
    assert asked("cuda", None, 99, CPU=8.0, GPU=2.0) == {
        "workers": 2,
        "num_cpus": 1,
        "num_gpus": 1.0,
    }
    assert asked("cuda", 4, 99, CPU=8.0, GPU=1.0)["num_gpus"] == 0.25
    for device, workers, word in (
        ("cpu", 9, "8 cores"),
        ("cuda", None, "no GPU"),
        ("cuda:1", None, "give cuda"),
    ):
        with pytest.raises(UserError, match=word):
            asked(device, workers, 99, CPU=8.0)


def test_a_cluster_that_does_not_answer_is_one_line_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False))
    monkeypatch.setitem(sys.modules, "ray.data", SimpleNamespace())
    job = Job(tmp_path, tuple(pictures(tmp_path, 1)), 4)
    with pytest.raises(UserError, match=r"no Ray answers at 127\.0\.0\.1:1; check RAY_ADDRESS"):
        cluster.run_job(job, CLASSIFIER, Settings())


def test_words_become_paths_each_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = pictures(tmp_path / "p" / "deep", 2)
    colour(tmp_path / "one.png", (0, 0, 0))
    (tmp_path / "p" / "list.txt").write_text(
        f"# a comment\n\ndeep/0.png\r\n{tmp_path}/one.png\nno such.jpg\n", encoding="utf-8-sig"
    )
    found = find_pictures(["@p/list.txt", "p/**/*.png", "p/deep/../deep/1.png"])
    assert found == [
        here[0],
        str(tmp_path / "one.png"),
        str(tmp_path / "p" / "no such.jpg"),
        here[1],
    ]
    assert next(source.place for source in find_sources(["@p/list.txt"])) == "p/deep/0.png"
    (tmp_path / "empty.txt").write_text("\n")
    for words, reason in (("@empty.txt", "is empty"), ("@none.txt", "cannot be read")):
        with pytest.raises(UserError, match=reason):
            find_pictures([words])
    (tmp_path / "clip.mp4").touch()
    with pytest.raises(UserError, match="is a video"):
        find_pictures(["clip.mp4"])


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--engine-cluster", "ray"], r"espnetv2\[ray\]"),
        (["--workers", "2"], "need --engine-cluster"),
        (["--part-size", "2"], "need --engine-cluster"),
    ],
)
def test_what_the_command_cannot_do_is_one_line(tmp_path, monkeypatch, words, reason):
    monkeypatch.setitem(sys.modules, "ray", None)
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["predict", "x", *words, str(tmp_path), "--out", str(out)])
    assert isinstance(result.exception, UserError)
    with pytest.raises(UserError, match=reason):
        raise result.exception
    assert not out.exists()


# with Ray


@pytest.fixture
def desk(tmp_path):
    """A folder with a small classifier."""
    pytest.importorskip("ray")
    network = create_model("espnetv2_s0_5", num_classes=3)
    convention = CONVENTIONS["imagenet"].to_json()
    header = Header("espnetv2_s0_5", {"num_classes": 3}, NAMES, None, convention)
    write_safetensors(network.state_dict(), header, tmp_path / "m.safetensors")
    return tmp_path


def started(desk, *words):
    command = [sys.executable, "-m", "espnetv2", "predict", "m.safetensors", *words]
    return subprocess.Popen(
        [*command, "--out", "out", "--engine-cluster", "ray", "--workers", "2", "--json"],
        cwd=desk,
        env=os.environ | {"RAY_ADDRESS": "", "OMP_NUM_THREADS": "1"},  # no one else's
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a shell's background jobs ignore Ctrl-C, and what they start does too
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def finished(desk, *words):
    process = started(desk, *words)
    output, errors = process.communicate(timeout=500)
    assert process.returncode == 0, errors
    assert errors == ""
    return json.loads(output)


@pytest.mark.slow
def test_a_job_over_ray_says_what_the_predictor_says(desk):
    paths = pictures(desk / "p", 9)
    bad = desk / "bad.jpg"
    bad.write_bytes(b"\xff\xd8\xff not much")
    (desk / "list.txt").write_text("bad.jpg\nnone.jpg\np/3.png\n")
    words = ("p", "@list.txt", "--part-size", "4", "--batch-size", "2", "--top", "3")
    summary = finished(desk, *words)
    assert (summary["pictures"], summary["errors"], summary["looked_at"]) == (11, 2, 11)
    assert sorted(path.name for path in (desk / "out").iterdir()) == [
        JOB,
        *(f"part-{number:05d}.parquet" for number in range(3)),
    ]
    rows = {row["path"]: row for row in rows_of(desk / "out")}
    assert set(rows) == {*paths, str(bad), str(desk / "none.jpg")}
    predictor = load(desk / "m.safetensors", top=3)
    for path in paths:
        own = predictor(path)
        assert rows[path]["error"] is None
        assert rows[path]["labels"] == list(own.labels)
        assert np.allclose(rows[path]["scores"], own.scores, rtol=0, atol=1e-5)
    for path in (str(bad), str(desk / "none.jpg")):
        assert path in rows[path]["error"]
        assert rows[path]["labels"] is rows[path]["scores"] is None
    assert finished(desk, *words)["looked_at"] == 0
    process = started(desk, *words, "--limit", "3")
    _, errors = process.communicate(timeout=500)
    assert process.returncode == 2
    assert errors.count("\n") == 1
    assert "holds a job with other inputs" in errors


@pytest.mark.slow
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_a_job_that_was_stopped_goes_on_and_does_every_picture_once(desk, blow):
    paths = pictures(desk / "p", 80)
    words = ("p", "--part-size", "2", "--size", "448x448")
    process = started(desk, *words)
    out = desk / "out"
    while len(list(out.glob("part-*"))) < 5 and process.poll() is None:
        time.sleep(0.005)
    os.killpg(process.pid, blow)
    _, errors = process.communicate(timeout=120)
    if blow == signal.SIGINT:
        assert (process.returncode, errors) == (130, "stopped; the same command goes on\n")
    before = {
        path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.glob("part-*")
    }
    assert 5 <= len(before) < 40
    summary = finished(desk, *words)
    assert summary["pictures"] == 80
    assert 0 < summary["looked_at"] <= 80 - 2 * len(before)
    for name, (stamp, content) in before.items():
        assert (out / name).stat().st_mtime_ns == stamp
        assert (out / name).read_bytes() == content
    assert Counter(row["path"] for row in rows_of(out)) == Counter(paths)
    assert not list(out.glob(".part-*"))
