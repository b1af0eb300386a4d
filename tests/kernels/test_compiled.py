"""The kernels compile for GPUs that are not here: Triton's compiler needs none."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

INSTRUCTIONS = {
    "forward": 80,
    "act": 100,
    "moments": 100,
    "grad_x": 80,
    "grad_weight": 105,
    "walk forward": 34,
    "walk moments": 42,
    "walk backward": 100,
}
"""Of the pyramid's loops for a value, at most; docs/log.md says what follows from them."""


SHARED = 99 * 1024
"""Bytes that small GPUs have for a program."""


@pytest.mark.parametrize("capability", [pytest.param(80, marks=pytest.mark.slow), 90])
def test_every_kernel_compiles_and_fits_into_the_registers(capability, tmp_path):
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, Path(__file__).parent / "compile_kernels.py", str(capability)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TRITON_INTERPRET": "0", "ESPNETV2_CACHE": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == 32
    for name, (registers, spilled, shared, single, instructions) in found.items():
        assert registers <= 255, name
        assert spilled <= (48 if name.startswith("walk backward, stride 2") else 0), name
        assert shared <= SHARED, name
        assert not single, f"{name} loads single values"
        assert instructions <= INSTRUCTIONS.get(name.partition(",")[0], 40), name
