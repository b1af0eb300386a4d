"""WebDataset shards: a few large tar files in place of a million small ones, read by position."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tarfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from espnetv2.data.pictures import PICTURE_SUFFIXES, open_picture
from espnetv2.data.sample import Sample, folder
from espnetv2.errors import UserError

_BLOCK = 512  # bytes; tar files come in these, and end with one of zeros


@dataclass(frozen=True)
class Index:
    """Where every picture lies.

    Attributes:
        shards: Of each picture, the number of its file; int32 (N,).
        offsets: Where its bytes begin, int64 (N,).
        sizes: How many they are, int64 (N,).
        labels: Class indices, int64 (N,).
        keys: Names within the shard, bytes (N,).
    """

    shards: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray
    keys: np.ndarray


class Shards:
    """Pictures with a class each, in `<root>/<split>-*.tar`; names in `<root>/classes.txt`.

    A sample is a picture and a `.cls` file (the class index in digits) of one name, next to each
    other; other members are passed over. The headers are read once and kept beside the shards
    (`.<split>.index.npz`), or in memory where that cannot be written. Any picture is then one
    read at a known position, so that order, augmentation and resume work as for a folder.

    Args:
        root: The folder of the shards.
        split: What their names begin with.
        classes: Names by index where there is no `classes.txt`.

    Raises:
        UserError: No shards, one that is missing, cut short or of another size than
            `<split>.json` says, a sample without picture or class, no class names.
    """

    palette: tuple[tuple[int, int, int], ...] | None = None
    ignore: int | None = None
    groups: Mapping[str, tuple[int, ...]] = MappingProxyType({})

    def __init__(self, root: Path, split: str, classes: Sequence[str] | None = None) -> None:
        self.classes = _class_names(root, classes)
        self.scored = len(self.classes)
        self.files = shard_files(root, split)
        self.index = _index(root, split, self.files)
        wrong = np.flatnonzero((self.index.labels < 0) | (self.index.labels >= len(self.classes)))
        if len(wrong):
            first = int(wrong[0])
            raise UserError(
                f"{self._place(first)}: class {self.index.labels[first]} is none of the "
                f"{len(self.classes)} names; mend classes.txt"
            )

    def __len__(self) -> int:
        return len(self.index.labels)

    def __getitem__(self, index: int) -> Sample:
        size = int(self.index.sizes[index])
        path = self.files[self.index.shards[index]]
        try:
            # opened anew each time: nothing to share between workers, nothing to run out of
            with path.open("rb") as file:
                file.seek(int(self.index.offsets[index]))
                content = file.read(size)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from error
        if len(content) < size:
            raise UserError(f"{path}: cut short since it was opened; copy or make it again")
        place = self._place(index)
        return Sample(open_picture(place, content=content), int(self.index.labels[index]), place)

    def _place(self, index: int) -> str:
        shard = self.files[self.index.shards[index]]
        return f"{shard}/{self.index.keys[index].decode(errors='replace')}"


def read(root: Path, split: str, *, classes: Sequence[str] | None = None) -> Shards:
    """One split: `<root>/<split>-000000.tar` and so on."""
    return Shards(folder(root, what="webdataset"), split, classes)


def shard_files(root: Path, split: str) -> list[Path]:
    """The shards of a split by name, every one that `<split>.json` lists if there is one.

    Raises:
        UserError: There are none, or one is missing or of another size than is stated.
    """
    name = re.compile(rf"{re.escape(split)}-\d+\.tar")
    found = sorted(path for path in root.iterdir() if name.fullmatch(path.name) and path.is_file())
    if not found:
        raise UserError(
            f"webdataset: no {split}-*.tar in {root}; write them with `espnetv2 data shards`"
        )
    listed = root / f"{split}.json"
    if not listed.is_file():
        return found
    try:
        sizes = {row["name"]: row["bytes"] for row in json.loads(listed.read_text())["shards"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{listed}: is no index of shards; remove or replace it") from error
    for shard, size in sizes.items():
        path = root / shard
        if not path.is_file():
            raise UserError(f"{path}: no such shard, but {listed.name} lists it; copy it here")
        if path.stat().st_size != size:
            raise UserError(
                f"{path}: has {path.stat().st_size:,} bytes, but {listed.name} says {size:,}; "
                "copy or make it again"
            )
    for path in found:
        if path.name not in sizes:
            raise UserError(f"{path}: {listed.name} does not list it; remove one of them")
    return found


def _class_names(root: Path, classes: Sequence[str] | None) -> tuple[str, ...]:
    path = root / "classes.txt"
    if not path.is_file():
        if classes is None:
            raise UserError(
                f"{path}: no such file; write the classes there, one a line in the order of "
                "their numbers, or set data.classes"
            )
        return tuple(classes)
    names = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    while names and not names[-1]:
        names = names[:-1]
    if not names:
        raise UserError(f"{path}: names no class; write one a line")
    if classes is not None and tuple(classes) != names:
        raise UserError(f"{path}: names other classes than data.classes; leave one of them out")
    return names


def _index(root: Path, split: str, files: Sequence[Path]) -> Index:
    """From the file beside the shards if it was made of these very shards, else from them."""
    stamps = json.dumps([[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in files])
    kept = root / f".{split}.index.npz"
    try:
        with kept.open("rb") as file, np.load(file) as stored:
            if str(stored["stamps"]) == stamps:
                return Index(**{name: stored[name] for name in Index.__dataclass_fields__})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # none yet, or a damaged one: it can be made again
    index = _read_index(files)
    temporary = root / f".{split}.{os.getpid()}.npz"
    with contextlib.suppress(OSError):  # the folder may be read-only
        try:
            np.savez(temporary, stamps=np.array(stamps), **vars(index))
            temporary.replace(kept)
        finally:
            temporary.unlink(missing_ok=True)
    return index


def _read_index(files: Sequence[Path]) -> Index:
    rows = [(i, *row) for i, path in enumerate(files) for row in _read_headers(path)]
    shards, offsets, sizes, labels, keys = zip(*rows, strict=True) if rows else ([], [], [], [], [])
    if not rows:
        raise UserError(f"{files[0]}: no pictures in it; write it with `espnetv2 data shards`")
    return Index(
        shards=np.array(shards, np.int32),
        offsets=np.array(offsets, np.int64),
        sizes=np.array(sizes, np.int64),
        labels=np.array(labels, np.int64),
        keys=np.array(keys),
    )


def _read_headers(path: Path) -> Iterator[tuple[int, int, int, bytes]]:
    """(offset, size, label, key) of each sample of one shard."""
    key = ""
    parts: dict[str, Any] = {}
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                base, _, suffix = _split(member.name)
                if not member.isfile() or not base or not suffix:
                    continue
                if base != key:
                    yield from _sample(path, key, parts)
                    key, parts = base, {}
                if suffix == "cls":
                    parts["cls"] = tar.extractfile(member).read(32)  # type: ignore[union-attr]
                elif f".{suffix}" in PICTURE_SUFFIXES:
                    if "picture" in parts:
                        raise UserError(f"{path}/{key}: has two pictures; leave one out")
                    parts["picture"] = (member.offset_data, member.size)
            file.seek(tar.offset)
            if file.read(_BLOCK) != bytes(_BLOCK):
                raise tarfile.ReadError("no end mark")
        yield from _sample(path, key, parts)
    except (tarfile.TarError, EOFError) as error:
        raise UserError(f"{path}: damaged or cut short ({error}); copy or make it again") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def _split(name: str) -> tuple[str, str, str]:
    """A member's key and suffix, at the first dot of the file name as WebDataset has it."""
    above, slash, last = name.rpartition("/")
    base, dot, suffix = last.partition(".")
    return (f"{above}{slash}{base}" if base else ""), dot, suffix.lower()


def _sample(path: Path, key: str, parts: dict[str, Any]) -> Iterator[tuple[int, int, int, bytes]]:
    if not parts:
        return
    lacking = {"cls", "picture"} - set(parts)
    if lacking:
        what = "class (.cls)" if "cls" in lacking else "picture"
        raise UserError(f"{path}/{key}: has no {what}; every sample needs both")
    try:
        label = int(parts["cls"])
    except ValueError as error:
        raise UserError(
            f"{path}/{key}.cls: {parts['cls'].decode(errors='replace')!r} is no class index"
        ) from error
    offset, size = parts["picture"]
    yield offset, size, label, key.encode(errors="surrogateescape")
