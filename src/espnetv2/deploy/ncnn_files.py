"""The files of an ncnn artefact, and their checksums: ncnn itself trusts whatever it is given."""

from __future__ import annotations

import hashlib
from pathlib import Path

from espnetv2.errors import UserError

PARAM, BIN = "model.ncnn.param", "model.ncnn.bin"
SUMS = "SHA256SUMS"
"""As `sha256sum --check` reads it."""


def write_sums(folder: Path) -> None:
    """Write the checksums of both files beside them."""
    lines = [f"{_digest(folder / name)}  {name}\n" for name in (PARAM, BIN)]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def check_sums(folder: Path) -> None:
    """Compare both files with their checksums.

    Raises:
        UserError: A file is missing or is not what was written.
    """
    for name in (PARAM, BIN, SUMS):
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing; export again")
    lines = (folder / SUMS).read_text(encoding="utf-8", errors="replace").splitlines()
    stated = {name: told for told, _, name in (line.partition("  ") for line in lines)}
    for name in (PARAM, BIN):
        if stated.get(name) != _digest(folder / name):
            raise UserError(
                f"{folder / name} is damaged: its checksum is not the one in {SUMS}; export again"
            )


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
