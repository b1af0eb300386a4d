"""`espnetv2 export` and `espnetv2 benchmark` as they are typed."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from espnetv2.cli import app
from espnetv2.deploy.verify import drawn_pictures
from espnetv2.profiling import row_counters
from espnetv2.profiling.complexity import measure_by_name
from fake_power import Clock, Counter, measured

MODEL = "espnetv2_s0_5.imagenette"


@pytest.fixture
def typed(monkeypatch, capsys):
    """Runs a command in this process; gives the exit code and what it wrote."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["espnetv2", *map(str, words)])
        try:
            app.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def pictures(tmp_path):
    for index, picture in enumerate(drawn_pictures(4, (150, 200))):
        (tmp_path / "pictures").mkdir(exist_ok=True)
        picture.save(tmp_path / "pictures" / f"{index}.png")
    return tmp_path / "pictures"


def test_an_artefact_is_made_and_looks_at_pictures(typed, tmp_path, pictures):
    pytest.importorskip("onnxruntime")
    out = tmp_path / "exported"
    code, said, _ = typed(
        *("export", MODEL, "--to", "onnx", "--size", "64x96", "--out", out),
        *("--pictures", pictures, "--json"),
    )
    assert code == 0
    (made,) = json.loads(said)["artefacts"]
    assert made["verified"] == "4 pictures in onnxruntime"
    assert made["difference"] < 1e-4
    assert made["inputs"] == [{"name": "image", "shape": [1, 3, 64, 96], "dtype": "float32"}]
    code, said, _ = typed("predict", out / "onnx", pictures, "--out", tmp_path / "seen", "--json")
    assert code == 0
    plain = typed("predict", MODEL, pictures, "--size", "64x96", "--out", tmp_path / "p", "--json")
    for ours, torchs in zip(
        json.loads(said)["results"], json.loads(plain[1])["results"], strict=True
    ):
        assert [one["label"] for one in ours["top"]] == [one["label"] for one in torchs["top"]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--to", "onxx"), "onnx"),
        (("--to", "coreml", "--precision", "bf16"), "coreml is not exported in bf16; choose from"),
        (("--to", "onnx", "--size", "64by96"), "is not HEIGHTxWIDTH"),
        (("--to", "native", "--size", "64", "--input", "pixels"), "give --input input"),
        (
            ("--to", "native", "--size", "64", "--input", "pixels", "--output", "decoded"),
            "give --input input",
        ),
        (("--to", "onnx", "--dynamic", "--batch", "4"), "leave --batch out"),
        (("--to", "onnx", "--precision", "int8"), "give --calib DIR"),
        (("--to", "onnx", "--precision", "int8", "--calib", "none"), "none is not a folder"),
        (("--to", "onnx", "--gate", "top1"), "--gate needs --gate-data DIR and --gate-dataset"),
        (("--to", "onnx", "--gate-data", "x"), "need --gate METRIC=POINTS"),
        (
            ("--to", "onnx", "--gate", "top1", "--gate-data", "x", "--gate-dataset", "imagefolder"),
            "expected METRIC=POINTS",
        ),
        (
            ("--to", "onnx", "--gate", "top1=1", "--gate-data", "x", "--gate-dataset", "imagnet"),
            "imagefolder",
        ),
        (
            ("--to", "onnx", "--gate", "miou=1", "--gate-data", "x", "--gate-dataset", "camvid"),
            "camvid is for segmentation, but the network does classification",
        ),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(typed, tmp_path, words, message):
    code, _, err = typed("export", MODEL, "--out", tmp_path / "exported", *words)
    assert code == 2
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert message in err
    assert not list(tmp_path.glob("exported/*"))


def test_a_place_that_cannot_be_written_is_one_line(typed, tmp_path):
    pytest.importorskip("onnxruntime")
    file = tmp_path / "file"
    file.touch()
    for words in (
        ("export", MODEL, "--to", "onnx", "--size", "64"),
        ("benchmark", MODEL, "--engine", "onnxruntime", "--size", "64", "--seconds", "0.1"),
        ("reproduce", "table1"),
    ):
        code, _, err = typed(*words, "--out", file / "in")
        assert code == 2
        assert err.splitlines()[-1].startswith("error: cannot write")
        assert str(file) in err


def test_free_sizes_keep_the_size_that_pictures_get(typed, tmp_path):
    pytest.importorskip("onnxruntime")
    typed("export", MODEL, "--to", "onnx", "--dynamic", "--size", "97x161", "--out", tmp_path)
    said = json.loads((tmp_path / "onnx" / "export.json").read_text())
    assert said["preprocessing"]["size"] == [97, 161]
    assert said["dynamic"]


def test_a_damaged_artefact_is_one_line(typed, tmp_path):
    pytest.importorskip("onnxruntime")
    picture = tmp_path / "picture.png"
    Image.new("RGB", (64, 64)).save(picture)
    typed("export", MODEL, "--to", "onnx", "--size", "64", "--out", tmp_path)
    file = tmp_path / "onnx" / "model.onnx"
    whole = file.read_bytes()
    file.write_bytes(whole[:1000])
    code, _, err = typed("predict", tmp_path / "onnx", picture, "--out", tmp_path / "seen")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "the files have 1000 bytes, but export.json says" in err
    file.write_bytes(b"x" * len(whole))
    code, _, err = typed("predict", tmp_path / "onnx", picture, "--out", tmp_path / "seen")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "model.onnx is damaged: its checksum is not the one in export.json" in err


def test_rows_are_measured_side_by_side(typed, tmp_path):
    out = tmp_path / "measured"
    code, said, _ = typed(
        *("benchmark", MODEL, "--form", "both", "--size", "64x64", "--seconds", "0.2"),
        *("--batch", "2", "--energy", "--counters", "--out", out, "--json"),
    )
    assert code == 0
    document = json.loads(said)
    assert document == json.loads((out / "benchmark.json").read_text())
    plain, deploy = document["rows"]
    assert (plain["form"], deploy["form"]) == ("plain", "deploy")
    for row in (plain, deploy):
        assert 0 < row["ms_min"] <= row["ms_median"] <= row["ms_p95"]
        assert row["images_per_second"] == pytest.approx(2000 / row["ms_median"], rel=0.01)
        assert (row["batch"], row["threads"], row["size"]) == (2, 1, [64, 64])
        assert row["bytes"] > 900_000
        energy = row["millijoules_per_image"]
        assert isinstance(energy, float) or energy.startswith("not available")
        for name in ("gpu_load", "gpu_kernels"):
            assert row[name].startswith("not available (the network runs on the CPU")
    assert plain["difference"] == 0
    assert 0 < deploy["difference"] < 1e-5
    table = (out / "benchmark.md").read_text()
    assert table.count("\n| " + MODEL) == 2
    assert document["machine"]["versions"]["torch"] in table


def test_energy_is_drawn_against_multiply_adds(typed, tmp_path, monkeypatch):
    def spent(run, *, counter, images):
        assert counter.covers == "board"
        run()
        return measured(powers=(40.0, 42.0, 41.0), images=images, counter=counter, clock=clock)

    clock = Clock()
    found = SimpleNamespace(counters=[Counter(clock)], reasons=[])
    monkeypatch.setattr(row_counters, "survey", lambda: found)
    monkeypatch.setattr(row_counters, "measure", spent)
    words = ("--size", "64x64", "--seconds", "0.2", "--energy", "--json", "--out", tmp_path)
    code, said, _ = typed("benchmark", "espnetv2_s0_5", "espnetv2_s1_0", *words)
    assert code == 0
    rows = json.loads(said)["rows"]
    assert [row["energy"]["load_watts"] for row in rows] == [41.0, 41.0]
    assert all(row["millijoules_per_image"] > 0 for row in rows)
    counted = [measure_by_name(row["model"], size=(64, 64)).macs for row in rows]
    assert [row["macs"] for row in rows] == counted
    assert counted[0] < counted[1]
    assert np.asarray(Image.open(tmp_path / "energy.png").convert("L")).std() > 10  # not blank
    assert not (tmp_path / "benchmark.png").exists()  # no metric was asked for


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((MODEL, "--engine", "onnx"), "onnxruntime"),
        ((MODEL, "--form", "folded"), "choose deploy, plain or both"),
        ((MODEL, "--engine", "onnxruntime", "--device", "cuda"), "runs on the CPU, not on cuda"),
        ((MODEL, "--threads", "two"), "expected whole numbers from 1"),
        ((MODEL, "--eval-data", "x"), "--eval-data DIR and --eval-dataset NAME go together"),
        (("espnetv2_seg_s0_5.camvidd",), "espnetv2_seg_s0_5.camvid"),
        (("eru_lm_7m",), "language models are not benchmarked"),
    ],
)
def test_mistakes_of_a_benchmark_are_one_line(typed, words, message):
    code, _, err = typed("benchmark", *words)
    assert code == 2
    assert err.splitlines()[-1].startswith("error: ")
    assert message in err.splitlines()[-1]
