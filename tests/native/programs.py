"""Builds the engine and the programs of `native/tests`, once for each way of building."""

import atexit
import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest

NATIVE = Path(__file__).parents[2] / "native"
TOOLCHAIN = NATIVE / "cmake" / "aarch64-linux-gnu.cmake"


def need(*programs: str) -> None:
    """Skip the test where one of these is not installed."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


def done(*words: object, **options: object) -> str:
    """What a command prints; the test fails, with all it said, where the command does."""
    found = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, check=False, **options
    )
    assert found.returncode == 0, f"{found.args}\n{found.stdout[-4000:]}\n{found.stderr[-8000:]}"
    return found.stdout


@cache
def built(*targets: str, source: Path = NATIVE, **defined: str) -> Path:
    """The folder of a build with these definitions."""
    folder = Path(mkdtemp(prefix="espnetv2-native-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    options = [f"-D{key}={value}" for key, value in defined.items()]
    done("cmake", "-S", source, "-B", folder, "-DCMAKE_BUILD_TYPE=Release", *options)
    done("cmake", "--build", folder, "--parallel", "2", *(["--target", *targets] * bool(targets)))
    return folder
