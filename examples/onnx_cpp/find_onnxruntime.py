"""Put ONNX Runtime's C++ headers and library where CMake finds them.

    python examples/onnx_cpp/find_onnxruntime.py build/onnxruntime

The library is the one of the Python package `onnxruntime`, which brings no headers. Debian's
libonnxruntime-dev and the archives of ONNX Runtime's releases hold both; where neither is at
hand, `npm` fetches a package that carries the official headers. Headers of another version fit: the
C interface only ever grows, and the example asks for no more of it than the library has.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "com.github.asus4.onnxruntime@0.4.9"
SHA512 = "BkzxduSZ9IkeDP6Q8lz2TFU2ie7hSSvS7ZIfzMooExoq0CNzJnuuGaUJ7IsojBgqO4ouD1jXah8OYyJbCN29Fg=="
INSIDE = "ios-arm64/onnxruntime.framework/Headers/"
HEADER = "onnxruntime_cxx_api.h"


def headers(folder: Path) -> Path:
    """`folder`, filled with the headers if it is not yet."""
    if (folder / HEADER).is_file():
        return folder
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit(
            "npm is not installed; get libonnxruntime-dev or a release of ONNX Runtime"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        command = [npm, "pack", "--silent", "--pack-destination", place, PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        archives = list(Path(place).glob("*.tgz"))
        if done.returncode or not archives:
            raise SystemExit(f"npm could not fetch {PACKAGE}: {done.stderr.strip()[-300:]}")
        digest = hashlib.sha512(archives[0].read_bytes()).digest()
        if base64.b64encode(digest).decode() != SHA512:
            raise SystemExit(f"{PACKAGE} is not the file that it was; its sha512 differs")
        scratch = Path(place) / "include"
        scratch.mkdir()
        with tarfile.open(archives[0]) as archive:
            for member in archive:
                name = member.name.rpartition("/")[2]
                if INSIDE in member.name and member.isfile() and name.endswith(".h"):
                    source = archive.extractfile(member)
                    assert source is not None
                    (scratch / name).write_bytes(source.read())
        if not folder.exists():  # another process may have been faster
            scratch.replace(folder)
    return folder


def library(folder: Path) -> Path:
    """The Python package's library under the names that a linker and a loader look for."""
    package = importlib.util.find_spec("onnxruntime")
    if package is None or package.origin is None:
        raise SystemExit('the Python package onnxruntime is missing; pip install "espnetv2[onnx]"')
    found = sorted(Path(package.origin).parent.glob("capi/libonnxruntime.so.*"))
    if not found:
        raise SystemExit(f"{package.origin} comes without libonnxruntime.so")
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(found[-1].resolve())
    return folder / "libonnxruntime.so"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(f"usage: {sys.argv[0]} FOLDER")
    place = Path(sys.argv[1]).resolve()
    print(f"-DONNXRUNTIME_INCLUDE={headers(place / 'include')}")
    print(f"-DONNXRUNTIME_LIBRARY={library(place / 'lib')}")
