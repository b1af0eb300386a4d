"""Files in, networks out; anything wrong is one clear line."""

import json
import os
import pickle
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import torch
from safetensors.torch import save_file

from close import assert_close
from espnetv2.data.preprocess import CONVENTIONS
from espnetv2.errors import UserError
from espnetv2.models.catalog import entry
from espnetv2.weights import fetch as fetching
from espnetv2.weights import keys
from espnetv2.weights.convert import to_official_file, to_safetensors
from espnetv2.weights.fetch import download, fetch, file_sha256
from espnetv2.weights.files import Header, read_official, read_safetensors, write_safetensors
from espnetv2.weights.load import create_model, load_network
from espnetv2.weights.published import PUBLISHED, Published, published_for
from espnetv2.weights.recognize import recognize


def official_file(path, name="espnetv2_seg_s0_5", family=keys.EDGENETS_SEGMENTER, **options):
    torch.manual_seed(1)
    network = entry(name).build(**options).eval()
    state = keys.to_official(network.state_dict(), family)
    torch.save(state, path)
    return network


@pytest.fixture
def official(tmp_path):
    path = tmp_path / "espnetv2_s_0.5_city_512x256.pth"
    return path, official_file(path, num_classes=20)


def test_official_file_loads_and_predicts_the_same(official):
    path, network = official
    loaded = load_network(path)
    image = torch.randn(1, 3, 48, 64)
    assert_close("logits", loaded.network(image), network(image))
    assert not loaded.network.training
    assert (loaded.name, loaded.task, len(loaded.classes)) == (
        "espnetv2_seg_s0_5",
        "segmentation",
        20,
    )
    assert loaded.preprocessing == CONVENTIONS["edgenets-segmentation"].resized((256, 512))


def test_conversion_there_and_back_is_bit_exact(official, tmp_path):
    path, _ = official
    header = to_safetensors(path, tmp_path / "ours.safetensors")
    assert header.options == {"num_classes": 20, "base_width": 16}
    to_official_file(tmp_path / "ours.safetensors", tmp_path / "back.pth")
    first, back = read_official(path), read_official(tmp_path / "back.pth")
    assert set(first) == set(back)
    assert all(torch.equal(first[k], back[k]) for k in first)


RECOGNIZED = [
    ("espnetv2_s0_5", keys.CLASSIFIER, {"num_classes": 10}, None),
    ("espnetv2_s1_75", keys.CLASSIFIER, {"num_classes": 3}, None),
    ("espnetv2_s1_0_plain_reduction", keys.CLASSIFIER, {"num_classes": 3}, None),
    ("espnetv2_seg_s1_25", keys.EDGENETS_SEGMENTER, {"num_classes": 5, "base_width": 32}, None),
    ("espnetv2_seg_arxiv_s1_0", keys.ARXIV_SEGMENTER, {"num_classes": 7}, None),
    ("espnetv2_ssd300_s1_0", keys.DETECTOR, {"num_classes": 4}, None),
    ("espnetv2_ssd512_s0_5", keys.DETECTOR, {"num_classes": 81}, "coco_512x512.pth"),
    ("espnet_c_p2_q3", keys.ESPNET, {"num_classes": 20}, None),
    ("espnet_p1_q2", keys.ESPNET, {"num_classes": 20, "skip": "stem"}, None),
    ("espnet_p2_q3", keys.ESPNET, {"num_classes": 12, "skip": "stem+image"}, None),
]


@pytest.mark.parametrize("data_parallel", [False, True])
@pytest.mark.parametrize(("name", "family", "options", "file"), RECOGNIZED)
def test_network_is_told_by_keys_and_shapes(name, family, options, file, data_parallel):
    state = keys.to_official(entry(name).build(**options).state_dict(), family)
    if data_parallel:
        state = {f"module.{k}": v for k, v in state.items()}
    found = recognize(state, file_name=file or "")
    assert (name, options) == (found.model, {k: found.options[k] for k in options})
    assert found.family is family


def test_training_checkpoint_gives_its_state_dict(official, tmp_path):
    path, _ = official
    wrapped = tmp_path / "checkpoint.pth.tar"
    torch.save({"epoch": 3, "arch": "x", "state_dict": read_official(path)}, wrapped)
    assert load_network(wrapped).name == "espnetv2_seg_s0_5"


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("ran",))


@pytest.mark.parametrize("legacy", [False, True])
def test_pickle_that_would_run_code_is_refused_and_runs_nothing(tmp_path, monkeypatch, legacy):
    monkeypatch.chdir(tmp_path)
    if legacy:
        (tmp_path / "bomb.pth").write_bytes(pickle.dumps(Bomb()))
    else:
        torch.save({"weight": Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(UserError, match=r"bomb\.pth"):
        load_network(tmp_path / "bomb.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("keep", [0, 100, 20_000])
def test_truncated_and_empty_files_are_one_line(official, tmp_path, suffix, keep):
    path, _ = official
    ours = tmp_path / "ours.safetensors"
    to_safetensors(path, ours)
    whole = (path if suffix == ".pth" else ours).read_bytes()
    broken = tmp_path / f"broken{suffix}"
    broken.write_bytes(whole[:keep])
    with pytest.raises(UserError, match="broken") as error:
        load_network(broken)
    assert "\n" not in str(error.value)


def test_other_networks_and_odd_content_are_one_line(tmp_path):
    cases = {
        "other.pth": {"conv1.weight": torch.zeros(1)},
        "list.pth": [torch.zeros(1)],
        "numbers.pth": {"a": 1},
    }
    for name, content in cases.items():
        torch.save(content, tmp_path / name)
        with pytest.raises(UserError) as error:
            load_network(tmp_path / name)
        assert "\n" not in str(error.value)
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(UserError, match="header"):
        load_network(tmp_path / "foreign.safetensors")


def test_wrong_architecture_in_the_header_names_keys(official, tmp_path):
    path, _ = official
    to_safetensors(path, tmp_path / "a.safetensors")
    state, header = read_safetensors(tmp_path / "a.safetensors")
    lying = Header(**(header.__dict__ | {"model": "espnetv2_seg_s1_0"}))
    write_safetensors(state, lying, tmp_path / "b.safetensors")
    with pytest.raises(UserError, match="other shapes"):
        load_network(tmp_path / "b.safetensors")


def damaged(path, state=None, **changes):
    """The shipped segmenter with another header, or with other tensors."""
    own, header = read_safetensors(fetch(PUBLISHED["espnetv2_seg_s0_5.camvid"]))
    write_safetensors(own if state is None else state, Header(**header.__dict__ | changes), path)
    return path


INPUT = CONVENTIONS["edgenets-segmentation"].to_json()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "espnet2_s1_0"}, "did you mean espnetv2_s1_0"),
        ({"model": None}, "model is None"),
        ({"options": None}, "options is None"),
        ({"options": {"num_classes": 11, "skip": "stem"}}, "'skip'"),
        ({"options": {"num_classes": 10**9}}, "other shapes"),
        ({"options": {"num_classes": 11, "base_width": -4}}, "negative"),
        ({"options": {"num_classes": "11"}}, "num_classes is '11'"),
        ({"source": None}, "source is None"),
        ({"palette": [[0, 0, 0]]}, "palette has 1 colours for 11 classes"),
        ({"palette": [[0, 0]] * 11}, "palette"),
        ({"classes": list(range(11))}, "classes is not a list of names"),
        ({"classes": ["sky"]}, "1 classes for 11 outputs"),
        ({"preprocessing": None}, "preprocessing is None"),
        ({"preprocessing": {"colour": "rgb"}}, "'colour'"),
        ({"preprocessing": INPUT | {"std": [0, 1, 1]}}, "std"),
        ({"preprocessing": INPUT | {"mean": [0.5]}}, "mean"),
        ({"preprocessing": INPUT | {"size": [-1, 5]}}, "size"),
        ({"preprocessing": INPUT | {"fit": "squeeze"}}, "fit"),
    ],
)
def test_a_damaged_header_is_one_line(tmp_path, changes, words):
    path = damaged(tmp_path / "a.safetensors", **changes)
    with pytest.raises(UserError, match=words) as error:
        load_network(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path, value):
    state, _ = read_safetensors(fetch(PUBLISHED["espnetv2_seg_s0_5.camvid"]))
    state["backbone.stem.norm.bias"][1] = value
    path = damaged(tmp_path / "a.safetensors", state)
    with pytest.raises(UserError, match=r"backbone\.stem\.norm\.bias holds NaN or infinity"):
        load_network(path)
    with pytest.raises(UserError, match="holds NaN"):
        to_official_file(path, tmp_path / "b.pth")
    assert not (tmp_path / "b.pth").exists()


@pytest.mark.parametrize(("name", "family", "options", "file"), RECOGNIZED)
def test_flattened_official_files_are_one_line(tmp_path, name, family, options, file):
    state = keys.to_official(entry(name).build(**options).state_dict(), family)
    torch.save({k: v.flatten() for k, v in state.items()}, tmp_path / "flat.pth")
    with pytest.raises(UserError, match=r"flat\.pth") as error:
        load_network(tmp_path / "flat.pth")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("path", ["none.pth", "none.safetensors", "run/none"])
def test_a_missing_file_is_no_unknown_name(path):
    with pytest.raises(UserError, match=f"{path}.* file"):
        load_network(path)


def test_nothing_is_left_where_writing_fails(official, tmp_path):
    path, _ = official
    blocker = tmp_path / "folder"
    blocker.write_text("a file")
    with pytest.raises(UserError, match="cannot write"):
        to_safetensors(path, blocker / "x.safetensors")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "espnetv2_s_0.5_city_512x256.pth",
        "folder",
    ]


def test_new_head_keeps_the_rest(official):
    path, network = official
    loaded = load_network(path, num_classes=5)
    assert loaded.network(torch.randn(1, 3, 64, 64)).shape[1] == 5
    assert loaded.fresh
    assert all("pyramids" in name for name in loaded.fresh)
    assert torch.equal(loaded.network.backbone.stem.conv.weight, network.backbone.stem.conv.weight)


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels_keep_the_weights(official, channels):
    path, network = official
    loaded = load_network(path, in_channels=channels)
    assert loaded.fresh == ()
    x = torch.randn(1, 1, 64, 64)
    if channels == 1:  # a grey picture gives what the same picture as RGB gives
        assert_close("grey", loaded.network(x), network(x.expand(1, 3, -1, -1)), 1e-4)
    else:
        assert loaded.network(x.expand(1, 4, -1, -1)).shape == (1, 20, 64, 64)


def test_create_model():
    network = create_model("espnetv2_s0_5", num_classes=10)
    assert network.training
    assert network.classifier.out_features == 10
    assert create_model("espnetv2_s0_5", num_classes=0)(torch.zeros(2, 3, 32, 32)).shape[1] == 1024
    backbone = create_model("espnetv2_s0_5", features_only=True)
    assert backbone.channels == (16, 32, 64, 128, 1024)
    with pytest.raises(UserError, match="did you mean"):
        create_model("espnetv2_s1_O")
    with pytest.raises(UserError, match="edgenets_voc_384"):
        create_model("espnetv2_seg_s1_0.edgenets_voc_385")
    with pytest.raises(UserError, match="no weights were published"):
        create_model("espnetv2_s1_75", pretrained=True)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("espnetv2_s0_5", {"num_classes": -1}, "num_classes is -1"),
        ("espnetv2_s0_5", {"num_classes": 1.5}, "num_classes is 1.5"),
        ("espnetv2_s0_5.imagenette", {"num_classes": "10"}, "num_classes is '10'"),
        ("espnetv2_s0_5", {"in_channels": 0}, "in_channels is 0"),
        ("espnetv2_s0_5.imagenette", {"in_channels": -1}, "in_channels is -1"),
        ("espnetv2_seg_s0_5", {"num_classes": 0}, "no classifier"),
        ("espnetv2_seg_s0_5.camvid", {"num_classes": 0}, "no classifier"),
        ("eru_lm_7m", {"in_channels": 1}, "no image channels"),
        ("espnet_p2_q8", {"features_only": True}, "espnet_c_"),
        (None, {}, "not None"),
    ],
)
def test_arguments_that_make_no_network_are_one_line(name, options, words):
    with pytest.raises(UserError, match=words):
        create_model(name, **options)


def test_no_classes_leave_the_classifier_out_with_weights_too():
    network = create_model("espnetv2_s0_5.imagenette", num_classes=0)
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 1024)


def test_published_rows_are_complete():
    """40 files: 10 classifiers, 16 + 3 segmenters, 4 detectors, 7 of ESPNet v1."""
    official = [row for row in PUBLISHED.values() if not row.shipped]
    assert len(official) == 40
    assert all(row.url.startswith("https://") and row.licence == "MIT" for row in official)
    assert len({row.url for row in official}) == 40
    assert all(row.sha256 is None or len(row.sha256) == 64 for row in PUBLISHED.values())
    assert published_for("espnetv2_seg_s1_0")[0].name == "espnetv2_seg_s1_0.edgenets_city_1024"


@pytest.mark.data
def test_every_official_file_at_hand_is_published_under_its_hash(shared):
    files = sorted((shared / "weights").rglob("*.pth"))
    known = {row.sha256: row for row in PUBLISHED.values() if row.sha256}
    assert files
    for path in files:
        row = known[file_sha256(path)]
        loaded = load_network(path)
        assert (row.model, row.file_name) == (loaded.name, path.name)
        assert loaded.preprocessing == CONVENTIONS[row.convention].resized(row.size)


@pytest.mark.data
def test_files_of_one_name_are_told_apart_by_folder_and_hash(shared, monkeypatch):
    monkeypatch.setenv("ESPNETV2_WEIGHTS", str(shared / "weights"))
    encoder = fetch(PUBLISHED["espnet_c_p2_q8.cityscapes"])
    decoder = fetch(PUBLISHED["espnet_p2_q8.cityscapes"])
    assert (encoder.parent.name, decoder.parent.name) == ("encoder", "decoder")


def test_local_file_with_another_hash_is_refused(tmp_path, monkeypatch):
    row = PUBLISHED["espnet_p2_q8.camvid"]
    folder = tmp_path / "decoder"
    folder.mkdir()
    (folder / row.file_name).write_bytes(b"not it")
    monkeypatch.setenv("ESPNETV2_WEIGHTS", str(tmp_path))
    with pytest.raises(UserError, match="sha256"):
        fetch(row)


class Server:
    """A real server on the loopback that can resume, and can break off."""

    def __init__(self, content):
        self.content, self.break_after, self.ranges = content, None, []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                wanted = self.headers.get("Range")
                outer.ranges.append(wanted)
                start = int(wanted[6:].rstrip("-")) if wanted else 0
                rest = outer.content[start:]
                self.send_response(206 if wanted else 200)
                self.send_header("Content-Length", str(len(rest)))
                self.end_headers()
                self.wfile.write(rest[: outer.break_after])

            def log_message(self, *args):
                pass

        self.http = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/file.pth"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def server():
    server = Server(os.urandom(300_000))
    yield server
    server.http.shutdown()
    server.http.server_close()


def test_download_resumes_and_is_checked(server, tmp_path):
    target = tmp_path / "cache" / "file.pth"
    part = target.with_name("file.pth.part")
    target.parent.mkdir()
    part.write_bytes(server.content[:100_000])
    (tmp_path / "whole").write_bytes(server.content)
    download(server.url, target, sha256=file_sha256(tmp_path / "whole"))
    assert target.read_bytes() == server.content
    assert server.ranges == ["bytes=100000-"]
    assert not part.exists()


def test_download_broken_off_is_never_taken_for_whole(server, tmp_path):
    server.break_after = 50_000
    with pytest.raises(UserError):
        download(server.url, tmp_path / "file.pth", sha256=None)
    assert not (tmp_path / "file.pth").exists()


def test_wrong_hash_is_not_kept(server, tmp_path):
    with pytest.raises(UserError, match="sha256"):
        download(server.url, tmp_path / "file.pth", sha256="0" * 64)
    assert list(tmp_path.iterdir()) == []


def test_unknown_hash_is_pinned_on_first_download(server, tmp_path, monkeypatch):
    monkeypatch.setenv("ESPNETV2_CACHE", str(tmp_path))
    monkeypatch.delenv("ESPNETV2_WEIGHTS", raising=False)
    monkeypatch.setattr(Published, "url", property(lambda self: server.url))
    row = PUBLISHED["espnetv2_s1_0.edgenets_in1k"]
    path = fetch(row)
    assert json.loads((tmp_path / "pins.json").read_text()) == {row.name: file_sha256(path)}
    path.write_bytes(b"changed")
    with pytest.raises(UserError, match="delete it"):
        fetch(row)
    path.unlink()
    server.content = b"another file"
    with pytest.raises(UserError, match="not kept"):
        fetch(row)


def test_no_network_says_which_file_to_put_where(tmp_path, monkeypatch):
    monkeypatch.setenv("ESPNETV2_CACHE", str(tmp_path))
    monkeypatch.delenv("ESPNETV2_WEIGHTS", raising=False)
    monkeypatch.setattr(Published, "url", property(lambda self: "http://127.0.0.1:9/none"))
    row = PUBLISHED["espnet_p2_q8.camvid"]
    with pytest.raises(UserError) as error:
        fetching.fetch(row)
    assert row.file_name in str(error.value)
    assert "ESPNETV2_WEIGHTS" in str(error.value)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)
