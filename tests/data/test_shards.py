"""Tar shards: the same training as from the folder, and ordinary WebDataset files."""

import hashlib
import io
import json
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import tiny_sets
from espnetv2.cli.data import data_app
from espnetv2.data import shards
from espnetv2.data.image_folder import ImageFolder
from espnetv2.data.shard_writer import write_shards
from espnetv2.data.training_sets import DataSpec, open_training_data
from espnetv2.errors import UserError
from espnetv2.training.loader import TrainingLoader

webdataset = pytest.importorskip("webdataset")


def packed(tmp_path, *, each=7, shard_size=4):
    root = tiny_sets.imagefolder(tmp_path / "folder", each=each)
    return root, write_shards(root, tmp_path / "out", ("train", "val"), shard_size=shard_size)


def theirs(tmp_path, root, *, shard_size=3):
    """The folder in its own order, by WebDataset's writer."""
    out = tmp_path / "theirs"
    out.mkdir()
    for split in ("train", "val"):
        pictures = ImageFolder(root / split)
        pattern = str(out / f"{split}-%04d.tar")
        with webdataset.ShardWriter(pattern, maxcount=shard_size, verbose=0) as writer:
            for path, target in pictures.files:
                key = f"{path.parent.name}/{path.stem}"
                writer.write({"__key__": key, "png": path.read_bytes(), "cls": target})
    (out / "classes.txt").write_text("cat\ndog\n")
    return out


def opened(format, root, **changes):
    spec = DataSpec(format, root, (32, 32), "imagenet", "imagenet", **changes)
    return open_training_data(spec, task="classification")


def batches(data, *, workers=0, state=None):
    data.train.seed = 7
    loader = TrainingLoader(data.train, batch_size=4, collate=data.collate, workers=workers, seed=3)
    if state is not None:
        loader.load_state_dict(state)
    return list(loader)


def same(some, others):
    return len(some) == len(others) and all(
        torch.equal(a, b)
        for x, y in zip(some, others, strict=True)
        for a, b in zip(x, y, strict=True)
    )


def content(samples):
    return sorted((np.asarray(s.image).tobytes(), s.target) for s in samples)


def tar(path, members):
    with tarfile.open(path, "w") as file:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))


def png(seed=0):
    buffer = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "png")
    return buffer.getvalue()


def refused(root, *words, classes=None):
    with pytest.raises(UserError) as caught:
        opened("webdataset", root, classes=classes)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_batches_from_shards_are_those_from_the_folder_bit_for_bit(tmp_path):
    root = tiny_sets.imagefolder(tmp_path / "folder", each=7)
    out = theirs(tmp_path, root)
    folder, shard = opened("imagefolder", root), opened("webdataset", out)
    assert same(batches(folder), batches(shard))
    for a, b in zip(folder.val, shard.val, strict=True):
        assert torch.equal(a[0], b[0])
        assert a[1] == b[1]
    assert shard.classes == folder.classes == ("cat", "dog")
    assert shard.class_counts().tolist() == [7, 7]


def test_resume_and_workers_change_no_batch_from_shards(tmp_path):
    packed(tmp_path)
    data = opened("webdataset", tmp_path / "out")
    whole = batches(data)
    assert len(whole) == 3
    assert same(batches(data, workers=2, state={"epoch": 0, "done": 1}), whole[1:])
    assert not same(batches(data, state={"epoch": 1, "done": 0}), whole)


def test_our_shards_hold_the_folder_shuffled(tmp_path):
    root, written = packed(tmp_path)
    for split in ("train", "val"):
        ours = shards.read(tmp_path / "out", split)
        folder = ImageFolder(root / split)
        assert content(map(ours.__getitem__, range(14))) == content(
            map(folder.__getitem__, range(14))
        )
        targets = ours.index.labels.tolist()
        assert targets not in (sorted(targets), sorted(targets)[::-1])
    assert [row["samples"] for row in written["train"]] == [4, 4, 4, 2]


# it leaves its files open
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_our_shards_to_the_same_samples(tmp_path):
    packed(tmp_path)
    paths = [str(path) for path in shards.shard_files(tmp_path / "out", "train")]
    assert len(paths) == 4
    stream = webdataset.WebDataset(paths, shardshuffle=False, empty_check=False)
    read = list(stream.decode("pil"))
    ours = shards.read(tmp_path / "out", "train")
    assert len(read) == len(ours) == 14
    for sample, own in zip(read, (ours[i] for i in range(14)), strict=True):
        assert np.array_equal(np.asarray(sample["png"]), np.asarray(own.image))
        assert sample["cls"] == own.target
        assert own.name.endswith(f".tar/{sample['__key__']}")


def test_equal_folders_give_equal_shards_and_the_index_states_them(tmp_path):
    root, written = packed(tmp_path)
    again = write_shards(root, tmp_path / "again", ("train", "val"), shard_size=4)
    assert again == written
    index = json.loads((tmp_path / "out/train.json").read_text())
    assert index["samples"] == 14
    for row in index["shards"]:
        found = (tmp_path / "out" / row["name"]).read_bytes()
        assert (len(found), hashlib.sha256(found).hexdigest()) == (row["bytes"], row["sha256"])


def test_headers_are_read_once_and_anew_for_other_shards(tmp_path, monkeypatch):
    packed(tmp_path)
    before = shards.read(tmp_path / "out", "train").index
    real = shards._read_headers
    monkeypatch.setattr(shards, "_read_headers", lambda path: pytest.fail("read again"))
    after = shards.read(tmp_path / "out", "train").index
    assert all(np.array_equal(getattr(before, n), getattr(after, n)) for n in vars(before))
    monkeypatch.setattr(shards, "_read_headers", real)
    kept = tmp_path / "out/.train.index.npz"
    kept.write_bytes(kept.read_bytes()[:300])
    assert len(shards.read(tmp_path / "out", "train")) == 14
    (tmp_path / "out/train.json").unlink()
    (tmp_path / "out/train-000000.tar").unlink()
    assert len(shards.read(tmp_path / "out", "train")) == 10


def test_any_sound_member_layout_is_read(tmp_path):
    """Other suffixes, upper case, folders in names, macOS' files, a BMP that PIL would map."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (1, 2, 3)).save(buffer, "bmp")
    tar(
        tmp_path / "train-0.tar",
        [
            ("./a/x.cls", b" 1\n"),
            ("./a/x.JPG", buffer.getvalue()),
            ("./a/x.txt", b"words"),
            ("./a/._x.jpg", b"not a picture"),
            ("b/x.mask.png", b"no"),
            ("b/x.png", png()),
            ("b/x.cls", b"0"),
        ],
    )
    found = shards.read(tmp_path, "train", classes=("cat", "dog"))
    assert [found[i].target for i in range(2)] == [1, 0]
    assert found[0].image.getpixel((0, 0)) == (1, 2, 3)


@pytest.mark.parametrize("where", ["end mark", "data", "header", "flipped"])
def test_a_damaged_shard_is_named_in_one_line(tmp_path, where):
    packed(tmp_path)
    victim = tmp_path / "out/train-000001.tar"
    whole = victim.read_bytes()
    with tarfile.open(victim) as file:
        last = file.getmembers()[-2]
    if where == "flipped":
        spoilt = bytearray(whole)
        spoilt[last.offset + 148] ^= 1
        victim.write_bytes(spoilt)
    else:
        with tarfile.open(victim) as file:
            final = file.getmembers()[-1]
        end = {
            "end mark": final.offset_data + -(-final.size // 512) * 512,
            "data": final.offset_data + final.size // 2,
            "header": final.offset + 100,
        }[where]
        victim.write_bytes(whole[:end])
    if where != "flipped":
        refused(tmp_path / "out", "train-000001.tar", "bytes")
    (tmp_path / "out/train.json").unlink()
    refused(tmp_path / "out", "train-000001.tar", "damaged or cut short")


def test_a_shard_cut_short_while_in_use_is_named(tmp_path):
    packed(tmp_path)
    data = opened("webdataset", tmp_path / "out")
    for path in (tmp_path / "out").glob("train-*.tar"):
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"train-\d+\.tar: cut short"):
        list(data.train)


def test_what_is_missing_is_said(tmp_path):
    _, _ = packed(tmp_path)
    out = tmp_path / "out"
    (out / "train-000002.tar").rename(tmp_path / "away.tar")
    refused(out, "train-000002.tar", "no such shard")
    (tmp_path / "away.tar").rename(out / "train-000002.tar")
    (out / "train-000009.tar").write_bytes(b"")
    refused(out, "train-000009.tar", "does not list it")
    (out / "train-000009.tar").unlink()
    refused(out, "classes.txt", "other classes", classes=("dog", "cat"))
    (out / "classes.txt").write_text("cat\n")
    refused(out, "train-00000", "class 1", "1 names")
    (out / "classes.txt").unlink()
    refused(out, "classes.txt", "data.classes")
    assert opened("webdataset", out, classes=("cat", "dog")).classes == ("cat", "dog")
    for path in out.glob("val-*.tar"):
        path.unlink()
    refused(out, "no val-*.tar", classes=("cat", "dog"))


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([("x.png", png())], "x: has no class"),
        ([("x.cls", b"0")], "x: has no picture"),
        ([("x.png", png()), ("x.cls", b"cat")], "'cat' is no class index"),
        ([("x.png", png()), ("x.jpg", png()), ("x.cls", b"0")], "two pictures"),
        ([("x.txt", b"")], "no pictures in it"),
    ],
)
def test_an_incomplete_sample_is_named(tmp_path, members, words):
    (tmp_path / "classes.txt").write_text("cat\n")
    tar(tmp_path / "train-0.tar", members)
    refused(tmp_path, "train-0.tar", words)


def test_a_damaged_picture_is_named_and_can_be_left_out(tmp_path):
    (tmp_path / "classes.txt").write_text("cat\n")
    sound = [("a.png", png(1)), ("a.cls", b"0")]
    for split in ("train", "val"):
        tar(tmp_path / f"{split}-0.tar", [*sound, ("b.png", png()[:60]), ("b.cls", b"0")])
    with pytest.raises(UserError, match=r"train-0\.tar/b: damaged"):
        list(opened("webdataset", tmp_path).train)
    assert len(opened("webdataset", tmp_path, skip_bad=True).train) == 1


def test_the_command_packs_both_splits_and_refuses_to_overwrite(tmp_path):
    root = tiny_sets.imagefolder(tmp_path / "100% folder", each=3)
    words = ["shards", str(root), "--out", str(tmp_path / "100% out"), "--shard-size", "4"]
    done = CliRunner().invoke(data_app, words)
    assert done.exit_code == 0, done.exception
    assert done.stdout.startswith("train: 6 pictures in 2 shards, 0.1 MB\nval: 6 pictures")
    names = sorted(path.name for path in (tmp_path / "100% out").iterdir())
    assert names == [
        "classes.txt",
        *("train-000000.tar", "train-000001.tar", "train.json"),
        *("val-000000.tar", "val-000001.tar", "val.json"),
    ]
    again = CliRunner().invoke(data_app, words)
    assert isinstance(again.exception, UserError)
    assert "there are shards already" in str(again.exception)
