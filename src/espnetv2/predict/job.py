"""A large number of pictures as a job that can be stopped at any time and go on.

The inputs are cut into blocks; a block becomes one file `part-00012.parquet`, which appears when it
is whole. What is finished is thus seen from the files alone: a job that was stopped in any way goes
on with the blocks that lack, and in the end every input stands in the files exactly once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from espnetv2.errors import UserError
from espnetv2.predict.output import check_folder, save_json
from espnetv2.predict.parquet import Settings, count_rows
from espnetv2.weights.load import Loaded

PART_SIZE = 256
"""Pictures of a part, unless stated."""

JOB = "_job.json"
"""What the folder is for; readers of a folder of Parquet pass over names that begin with `_`."""


@dataclass(frozen=True)
class Job:
    """Pictures to look at, cut into parts.

    Attributes:
        out: The folder of the parts.
        paths: Every picture once.
        part_size: Pictures of a part; the last one may have fewer.
    """

    out: Path
    paths: tuple[str, ...]
    part_size: int

    def __len__(self) -> int:
        return -(-len(self.paths) // self.part_size)

    def block(self, number: int) -> tuple[str, ...]:
        """The pictures of a part."""
        return self.paths[number * self.part_size : (number + 1) * self.part_size]

    def part(self, number: int) -> Path:
        """The file of a part."""
        return self.out / f"part-{number:05d}.parquet"

    def open_parts(self) -> list[int]:
        """Numbers of the parts that are not there, or not whole."""
        return [n for n in range(len(self)) if count_rows(self.part(n)) != len(self.block(n))]


def open_job(
    out: Path,
    loaded: Loaded,
    paths: Sequence[str],
    settings: Settings,
    *,
    part_size: int = PART_SIZE,
) -> Job:
    """Begin a job in a folder, or go on with the same one.

    Raises:
        UserError: The folder belongs to a job with other inputs, weights or settings, holds
            parts of an unknown one, or cannot be written.
    """
    check_folder(out)
    job = Job(out, tuple(paths), part_size)
    stated = {
        "model": loaded.name,
        "weights": _digest(loaded),
        "task": loaded.task,
        "classes": list(loaded.classes),
        "preprocessing": loaded.preprocessing.to_json(),
        "settings": asdict(settings),
        "part size": part_size,
        "inputs": list(paths),
    }
    stated = json.loads(json.dumps(stated))  # tuples become lists, as they will be read
    file = out / JOB
    if not file.exists():
        if next(out.glob("part-*.parquet"), None) is not None:
            raise UserError(f"{out}: has parts but no {JOB}; choose another --out")
        save_json(stated, file)
        return job
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        other = [key for key, value in stated.items() if known.get(key) != value]
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{file}: cannot be read; choose another --out") from error
    if other:
        raise UserError(
            f"{out}: holds a job with other {' and '.join(other)}; go on with the same command, "
            "or choose another --out"
        )
    return job


def _digest(loaded: Loaded) -> str:
    """Of all tensors; a file that was trained on has another."""
    digest = hashlib.sha256()
    for name, tensor in sorted(loaded.network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
