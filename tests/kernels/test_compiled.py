"""The kernels compile for GPUs that are not here: Triton's compiler needs none."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SPILLED = 256
"""Bytes of a thread that may lie in memory, of about 1000 in registers."""


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
def test_every_kernel_compiles_and_fits_into_the_registers(capability):
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, Path(__file__).parent / "compile_kernels.py", str(capability)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TRITON_INTERPRET": "0"},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == 15
    for name, (registers, spilled, vector) in found.items():
        assert registers <= 255, name
        assert spilled <= SPILLED, name
        assert vector, f"{name} loads single values"
