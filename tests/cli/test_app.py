"""The command line as a person meets it: in a process of its own."""

import json
import os
import pickle
import subprocess
import sys

import pytest
import torch
from PIL import Image

from espnetv2 import load
from espnetv2.cli.info import info
from espnetv2.errors import UserError
from espnetv2.models.catalog import CATALOG, entry
from espnetv2.weights import keys
from espnetv2.weights.published import SHIPPED


def espnetv2(*arguments, cwd=None, **environment):
    return subprocess.run(
        [sys.executable, "-m", "espnetv2", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, **environment},
    )


def refused(done, *words):
    """One line on stderr that holds the words, exit code 2, no traceback."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    for word in words:
        assert word in done.stderr
    return done.stderr


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("ran",))


def test_models_as_json():
    rows = json.loads(espnetv2("models", "--json").stdout)
    assert [row["name"] for row in rows] == list(CATALOG)
    wanted = {"name", "task", "parameters", "macs", "input_size", "weights"}
    assert all(wanted <= set(row) for row in rows)
    row = next(row for row in rows if row["name"] == "espnetv2_seg_s1_0")
    weights = {w["name"]: w for w in row["weights"]}
    assert weights["espnetv2_seg_s1_0.edgenets_city_1024"]["parameters"] == 234_010
    assert weights["espnetv2_seg_s1_0.edgenets_city_1024"]["score"] == 60.1


def test_models_as_text():
    text = espnetv2("models", "seg_s1_0").stdout
    assert "0.234 M" in text
    assert ".edgenets_voc_384  VOC 2012 val mIoU 60.22" in text
    assert "compare with" not in text
    assert "what the papers compare with" in espnetv2("models").stdout


def test_info():
    content = json.loads(espnetv2("info", "espnetv2_s1_0", "--json").stdout)
    assert (content["parameters"], content["live_parameters"]) == (1_670_072, 1_666_942)
    assert content["macs"] == 85_720_404
    convolutions = [row for row in content["layers"] if row["kind"] == "Conv2d"]
    assert sum(row["macs"] for row in convolutions) == content["macs"]
    assert convolutions[0]["receptive_field"] == [3.0, 3.0]
    text = espnetv2("info", "espnetv2_seg_s0_5.edgenets_city_512").stdout
    assert "at 256x512" in text
    assert "80,342" in text


def test_info_of_a_file_is_that_of_its_name(capsys):
    name = "espnetv2_s0_5.imagenette"
    file = str(SHIPPED / f"{name}.safetensors")
    info(file, as_json=True)
    of_file = json.loads(capsys.readouterr().out)
    info(name, as_json=True)
    assert of_file == json.loads(capsys.readouterr().out) | {"name": file}
    with pytest.raises(UserError, match="32"):
        info(file, size="16x16")


def test_a_precision_that_torch_lacks_names_those_it_has():
    with pytest.raises(UserError, match=r"fp32, bf16, fp16.*espnetv2 export"):
        load("espnetv2_seg_s0_5.camvid", precision="int8")


def test_convert(tmp_path):
    network = entry("espnet_c_p2_q3").build(num_classes=20)
    torch.save(keys.to_official(network.state_dict(), keys.ESPNET), tmp_path / "a.pth")
    done = espnetv2("convert", tmp_path / "a.pth", tmp_path / "b.safetensors", "--json")
    assert json.loads(done.stdout)["model"] == "espnet_c_p2_q3"
    assert espnetv2("convert", tmp_path / "b.safetensors", tmp_path / "c.pth").returncode == 0
    assert (tmp_path / "c.pth").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["models", "espnetv3_x"], ["espnetv3_x"]),
        (["info", "espnetv2_s1_O"], ["did you mean", "espnetv2_s1_0"]),
        (["info", "espnetv2_seg_s1_0.nope"], ["espnetv2_seg_s1_0.nope"]),
        (["info", "espnetv2_s1_0", "--size", "big"], ["big", "512x1024"]),
        (["info", "espnetv2_s1_0", "--size", "16x16"], ["32"]),
        (["info", "run/model.safetensors"], ["run/model.safetensors is not a file"]),
        (["convert", "none.pth", "out.safetensors"], ["none.pth"]),
        (["convert", "a.onnx", "b.tflite"], [".onnx"]),
        (["predict", "espnetv2_s1_75", "x.jpg"], ["x.jpg"]),
        (["predict", "espnetv2_seg_s1_O.edgenets_voc_384", "."], ["no picture"]),
    ],
)
def test_mistakes_are_one_line(arguments, words, tmp_path):
    refused(espnetv2(*arguments, cwd=tmp_path), *words)
    assert list(tmp_path.iterdir()) == []


def test_unknown_weights_and_missing_weights(tmp_path):
    picture = tmp_path / "x.png"
    Image.new("RGB", (40, 40)).save(picture)
    out = tmp_path / "out"
    wrong = espnetv2("predict", "espnetv2_seg_s1_0.edgenets_voc_385", picture, "--out", out)
    refused(wrong, "did you mean", "edgenets_voc_384")
    none = espnetv2("predict", "espnetv2_s1_75", picture, "--out", out)
    refused(none, "no weights were published for espnetv2_s1_75")
    assert not out.exists() or list(out.iterdir()) == []


def test_without_network_the_line_says_which_file_to_put_where(tmp_path):
    picture = tmp_path / "x.png"
    Image.new("RGB", (40, 40)).save(picture)
    done = espnetv2(
        "predict",
        "espnet_p2_q8.camvid",
        picture,
        "--out",
        tmp_path / "out",
        ESPNETV2_CACHE=str(tmp_path / "cache"),
        ESPNETV2_WEIGHTS="",
        https_proxy="http://127.0.0.1:9",
    )
    refused(done, "espnet_p_2_q_8_camvid.pth", "ESPNETV2_WEIGHTS", str(tmp_path / "cache"))
    assert not [p for p in tmp_path.rglob("*") if p.suffix in {".pth", ".part"}]


def test_hostile_weights(tmp_path):
    (tmp_path / "bomb.pth").write_bytes(pickle.dumps({"weight": Bomb()}))
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "short.pth").write_bytes(b"PK\x03\x04 cut off")
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "other.pth")
    before = sorted(p.name for p in tmp_path.iterdir())
    refused(espnetv2("convert", "bomb.pth", "x.safetensors", cwd=tmp_path), "bomb.pth")
    refused(espnetv2("convert", "empty.pth", "x.safetensors", cwd=tmp_path), "is empty")
    refused(espnetv2("convert", "short.pth", "x.safetensors", cwd=tmp_path), "damaged")
    refused(espnetv2("convert", "other.pth", "x.safetensors", cwd=tmp_path), "conv1.weight")
    assert before == sorted(p.name for p in tmp_path.iterdir())


def test_python_api_in_a_fresh_process():
    code = (
        "import espnetv2\n"
        "network = espnetv2.create_model('espnetv2_s0_5', num_classes=3)\n"
        "print(network.get_classifier().out_features, len(espnetv2.list_models('*seg*')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3", "12"]
