"""An artefact's folder is believed only if it is whole and of our version."""

import json

import pytest

from espnetv2.data.preprocess import CONVENTIONS
from espnetv2.deploy.artefact import (
    Artefact,
    Port,
    hashes_of,
    is_artefact,
    read_artefact,
    to_json,
    write_artefact,
)
from espnetv2.errors import UserError


@pytest.fixture
def artefact(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"12345")
    made = Artefact(
        target="onnx",
        folder=tmp_path,
        files=("model.bin",),
        model="espnetv2_s0_5",
        task="classification",
        classes=("a", "b"),
        palette=((1, 2, 3), (4, 5, 6)),
        preprocessing=CONVENTIONS["imagenet"].resized((64, 48)).to_json(),
        options={"num_classes": 2},
        precision="fp32",
        takes="input",
        gives="raw",
        inputs=(Port("image", ("batch", 3, 64, 48)),),
        outputs=(Port("logits", ("batch", 2)),),
        dynamic=False,
        bytes=5,
        sha256=hashes_of(tmp_path, ("model.bin",)),
    )
    write_artefact(made)
    return made


def test_it_comes_back_as_it_was(artefact):
    read = read_artefact(artefact.folder)
    assert json.dumps(to_json(read)) == json.dumps(to_json(artefact))
    assert read == read_artefact(artefact.folder / "export.json")
    assert (read.size, read.batch) == ((64, 48), None)
    assert read.preprocess().size == (64, 48)
    assert is_artefact(artefact.folder)
    assert not is_artefact("espnetv2_s0_5.imagenette")


def test_each_of_its_files_means_the_whole(artefact):
    """People give the model itself, as they do to other programs."""
    model = artefact.folder / "model.bin"
    assert is_artefact(model)
    assert read_artefact(model) == read_artefact(artefact.folder)
    (artefact.folder / "other.bin").write_bytes(b"")
    with pytest.raises(UserError, match="is no file of the artefact that"):
        read_artefact(artefact.folder / "other.bin")
    (artefact.folder / "weights.safetensors").write_bytes(b"")
    assert not is_artefact(artefact.folder / "weights.safetensors")


@pytest.mark.parametrize(
    ("ruin", "words"),
    [
        (lambda f: (f / "export.json").unlink(), "holds no export.json; make an artefact with"),
        (lambda f: (f / "export.json").write_text("{"), "is damaged"),
        (lambda f: (f / "export.json").write_text("[]"), "is damaged"),
        (lambda f: edit(f, format="espnetv2-export/9"), "is of version espnetv2-export/9, not"),
        (lambda f: edit(f, inputs=[{"name": "x"}]), "is damaged"),
        (lambda f: (f / "model.bin").unlink(), "is missing; export again"),
        (lambda f: (f / "model.bin").write_bytes(b"123"), "have 3 bytes, but export.json says 5"),
        (lambda f: (f / "model.bin").write_bytes(bytes(5)), "damaged: its checksum is not the one"),
        (lambda f: edit(f, sha256={}), "damaged: its checksum is not the one"),
        (lambda f: edit(f, sha256=None), "is damaged"),
    ],
)
def test_what_is_not_sound_is_refused(artefact, ruin, words):
    ruin(artefact.folder)
    with pytest.raises(UserError, match=words):
        read_artefact(artefact.folder)


def edit(folder, **values):
    file = folder / "export.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
