"""Packing a folder of class folders into WebDataset shards."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from espnetv2.data import image_folder
from espnetv2.data.image_folder import ImageFolder
from espnetv2.errors import UserError
from espnetv2.extras import require

SHARD_SIZE = 5000
"""Pictures of a shard; of ImageNet's about half a gigabyte."""


def write_shards(
    root: Path,
    out: Path,
    splits: Sequence[str],
    *,
    shard_size: int = SHARD_SIZE,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """Write `<out>/<split>-000000.tar`, ..., `<split>.json` and `classes.txt`.

    Pictures keep their bytes; within a split they are shuffled, the same for the same seed, so
    that who reads shards one after another sees mixed classes. Equal folders give equal files.
    A split appears when it is whole: before that there is only `.writing-<split>`.

    Args:
        root: With `<split>/<class>/*`.
        out: Made if it is missing.
        splits: The first one's folders are the classes.
        shard_size: Pictures of a shard.
        progress: Told the split, the pictures done and their number.

    Returns:
        Of each split its shards: name, samples, bytes, sha256.

    Raises:
        UserError: No such folders, shards are there already, or `out` cannot be written.
    """
    require("webdataset", extra="webdataset")
    first = image_folder.read(root, splits[0])
    pictures = {splits[0]: first}
    pictures |= {s: image_folder.read(root, s, classes=first.classes) for s in splits[1:]}
    for split in splits:
        if there := next(out.glob(f"{split}-*.tar"), None):
            raise UserError(f"{there}: there are shards already; choose another --out")
    names = "".join(f"{name}\n" for name in first.classes)
    listed = out / "classes.txt"
    if listed.exists() and listed.read_text(encoding="utf-8") != names:
        raise UserError(f"{listed}: names other classes than {root}; choose another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
        listed.write_text(names, encoding="utf-8")
        return {
            split: _write_split(pictures[split], out, split, shard_size, seed, progress)
            for split in splits
        }
    except OSError as error:
        raise UserError(
            f"{error.filename or out}: cannot be read or written ({error.strerror})"
        ) from error


def _write_split(
    pictures: ImageFolder,
    out: Path,
    split: str,
    shard_size: int,
    seed: int,
    progress: Callable[[str, int, int], None] | None,
) -> list[dict[str, Any]]:
    folder = out / f".writing-{split}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(seed)).tolist()
    pattern = f"{folder.resolve()}/{split}".replace("%", "%%") + "-%06d.tar"
    with require("webdataset", extra="webdataset").ShardWriter(
        pattern, maxcount=shard_size, maxsize=float("inf"), verbose=0, encoder=False, mtime=0
    ) as shards:
        for done, index in enumerate(order):
            path, target = pictures.files[index]
            suffix = path.suffix.lower().removeprefix(".")
            content = {suffix: path.read_bytes(), "cls": str(target).encode()}
            shards.write({"__key__": f"{done:08d}", **content})
            if progress is not None:
                progress(split, done + 1, len(order))
    rows = [
        {
            "name": path.name,
            "samples": min(shard_size, len(order) - number * shard_size),
            "bytes": path.stat().st_size,
            "sha256": _sha256(path),
        }
        for number, path in enumerate(sorted(folder.iterdir()))
    ]
    index = {"split": split, "samples": len(order), "seed": seed, "shards": rows}
    (folder / f"{split}.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    for path in sorted(folder.iterdir(), reverse=True):  # the index first: it tells if one lacks
        path.replace(out / path.name)
    folder.rmdir()
    return rows


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()
