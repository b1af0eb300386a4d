"""A model in the native engine's kernels for one instruction set, in a process of its own."""

import os
import subprocess
import sys

import numpy as np
import pytest

_SCRIPT = """
import sys, numpy, espnetv2_native as native
model = native.Model("model")
assert model.instruction_set == sys.argv[1], model.instruction_set
image = numpy.load("in.npy")
numpy.save("out.npy", model.open(*image.shape[:1], *image.shape[2:], 2).run(image)[0])
"""


def run_with(isa, content, images, folder):
    """The first output; skips where this processor lacks the instruction set."""
    (folder / "model").write_bytes(content)
    np.save(folder / "in.npy", images.numpy())
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, isa],
        env=os.environ | {"ESPNETV2_NATIVE_ISA": isa},
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    if "this processor has" in done.stderr:
        pytest.skip(f"this processor has no {isa}")
    assert done.returncode == 0, done.stderr
    return np.load(folder / "out.npy")
