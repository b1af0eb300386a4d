"""CUDA kernels on a processor: the same text, with other words for what a warp does together."""

import ctypes
import hashlib
import re
import subprocess
from pathlib import Path

from espnetv2.kernels import nvrtc
from espnetv2.kernels.depthwise_pyramid import walk

HERE = Path(__file__).parent / "emulated"
OPTIONS = ["-std=c++17", "-O1", "-shared", "-fPIC", "-x", "c++"]


def emulate(monkeypatch, folder):
    """Let kernels compile and launch as ever, but for this processor; maps lie in its memory.

    Only compiler, driver and primitives are others: a folder keeps what was compiled.
    """

    def image(text, device):
        made = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.so"
        if not made.exists():
            name = re.search(r'extern "C" .* (\w+)\(', text)[1]
            build(f"{text}\n#define KERNEL {name}\n{(HERE / 'kernel.cpp').read_text()}", made)
        return str(made).encode()

    driver = folder / "driver.so"
    if not driver.exists():
        build((HERE / "driver.cpp").read_text(), driver)
    loaded = ctypes.CDLL(str(driver))
    monkeypatch.setattr(nvrtc, "_PRIMITIVES", HERE / "warp.h")
    monkeypatch.setattr(nvrtc, "_driver", lambda: loaded)
    monkeypatch.setattr(nvrtc, "_image", image)
    monkeypatch.setattr(walk, "source", nvrtc.source.__wrapped__)
    monkeypatch.setattr(walk, "ready", lambda device: True)


def build(text, made):
    command = ["g++", *OPTIONS, "-", "-o", str(made)]
    subprocess.run(command, input=text, text=True, check=True)
