"""From a published row to a file on disk: local folders first, then the cache, then https."""

from __future__ import annotations

import hashlib
import json
import os
import urllib.error
import urllib.request
from pathlib import Path

from espnetv2.cache import cache_folder
from espnetv2.errors import UserError
from espnetv2.weights.published import SHIPPED, Published

_CHUNK = 1 << 20
_TIMEOUT_SECONDS = 30


def fetch(row: Published) -> Path:
    """Find or download the file of a published row, its hash checked.

    Ours come with the package. For others, folders named by `ESPNETV2_WEIGHTS` come first (any
    layout, found by file name), then the cache (`ESPNETV2_CACHE`, else `~/.cache/espnetv2`), then
    the official repository.

    Raises:
        UserError: No network, or a file whose hash is not the published one.
    """
    if row.shipped:
        return SHIPPED / row.path
    local = _find_local(row)
    if local is not None:
        return local
    target = cache_folder() / row.repository / f"{row.name}.pth"
    if not target.exists():
        download(row.url, target, sha256=row.sha256 or _pinned(row.name), file_name=row.file_name)
        _pin(row.name, file_sha256(target))
    else:
        _check(target, row.sha256 or _pinned(row.name))
    return target


def is_here(row: Published) -> bool:
    """Whether `fetch` finds the file on this machine, without the network.

    Raises:
        UserError: ESPNETV2_WEIGHTS names no folder, or a damaged file.
    """
    cached = cache_folder() / row.repository / f"{row.name}.pth"
    return row.shipped or _find_local(row) is not None or cached.exists()


def download(url: str, target: Path, *, sha256: str | None, file_name: str = "") -> None:
    """Download to `target`, resuming an interrupted download; all or nothing.

    Raises:
        UserError: No network, no permission, or another hash than `sha256` (if given).
    """
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _download_rest(url, part)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(
            f"cannot download {file_name or target.name} ({reason}); get {url} elsewhere and save "
            f"it as {target}, or set ESPNETV2_WEIGHTS to a folder that holds "
            f"{file_name or target.name}"
        ) from error
    except OSError as error:
        raise UserError(
            f"cannot write {part} ({error.strerror}); set ESPNETV2_CACHE to a writable folder"
        ) from error
    found = file_sha256(part)
    if sha256 is not None and found != sha256:
        part.unlink()
        raise UserError(
            f"{url} has sha256 {found[:16]}..., expected {sha256[:16]}...; it was not kept: try "
            "again, or get the file from a place you trust"
        )
    part.replace(target)


def file_sha256(path: Path) -> str:
    """Hash of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _download_rest(url: str, part: Path) -> None:
    """Append what is missing to `part`; start over if the server cannot resume."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is missing
            return
        raise
    resumed = response.status == 206
    with response, part.open("ab" if resumed else "wb") as file:
        while chunk := response.read(_CHUNK):
            file.write(chunk)
    told = response.headers.get("Content-Length")
    if told is not None and part.stat().st_size < int(told) + have * resumed:
        raise ConnectionError("the connection broke off; run again to resume")


def _find_local(row: Published) -> Path | None:
    """The file in a folder of `ESPNETV2_WEIGHTS`.

    Two official files may share a name (ESPNet's encoder and decoder): the folder above it
    tells them apart, else the hash does.
    """
    folders = [Path(p) for p in os.environ.get("ESPNETV2_WEIGHTS", "").split(os.pathsep) if p]
    found = []
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"ESPNETV2_WEIGHTS names {folder}, which is not a folder")
        found += sorted(folder.rglob(row.file_name))
    parent = Path(row.path).parent.name
    found.sort(key=lambda path: path.parent.name != parent)
    if row.sha256 is None:
        return found[0] if found else None
    for path in found:
        if file_sha256(path) == row.sha256:
            return path
    if found and found[0].parent.name == parent:
        _check(found[0], row.sha256)
    return None


def _check(path: Path, sha256: str | None) -> None:
    if sha256 is not None and (found := file_sha256(path)) != sha256:
        raise UserError(
            f"{path} has sha256 {found[:16]}..., expected {sha256[:16]}...; delete it and run again"
        )


def _pins_file() -> Path:
    return cache_folder() / "pins.json"


def _pinned(name: str) -> str | None:
    """The hash seen at the first download of a file whose published hash is unknown."""
    try:
        pins: dict[str, str] = json.loads(_pins_file().read_text())
    except (FileNotFoundError, ValueError):
        return None
    return pins.get(name)


def _pin(name: str, sha256: str) -> None:
    path = _pins_file()
    try:
        pins = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        pins = {}
    pins[name] = sha256
    scratch = path.with_name(f"{path.name}.{os.getpid()}")
    scratch.write_text(json.dumps(pins, indent=1, sort_keys=True))
    scratch.replace(path)
