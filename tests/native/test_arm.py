"""64-bit ARM, cross-compiled and emulated, says what torch says."""

import os

import numpy as np
import pytest
import torch

from deploy.lively import parts
from native.programs import TOOLCHAIN, built, done, need

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # compiles the engine

BOUND = 1e-5  # of the largest output


@pytest.mark.parametrize("isa", ["neon", "plain"])
@pytest.mark.parametrize(
    "name", ["espnetv2_s0_5", "espnetv2_seg_s0_5", "espnetv2_ssd300_s0_5", "shufflenetv1_g3_x0_25"]
)
def test_arm_is_torch(name, isa, networks, files, tmp_path):
    need("cmake", "aarch64-linux-gnu-g++", "qemu-aarch64")
    folder = built(
        "compare",
        ESPNETV2_TESTS="ON",
        CMAKE_TOOLCHAIN_FILE=str(TOOLCHAIN),
        CMAKE_EXE_LINKER_FLAGS="-static",
    )
    images = torch.randn(2, 3, 97, 131, generator=torch.Generator().manual_seed(0))
    images.numpy().tofile(tmp_path / "in.bin")
    said = done(
        "qemu-aarch64", folder / "compare", files[name], tmp_path / "in.bin",
        tmp_path / "out.bin", 2, 97, 131, 2,
        env=os.environ | {"ESPNETV2_NATIVE_ISA": isa},
    )  # fmt: skip
    assert said.split("\n")[0] == isa
    with torch.inference_mode():
        truth = parts(networks[name](images))
    content = (tmp_path / "out.bin").read_bytes()
    if name == "espnetv2_seg_s0_5":
        found = np.frombuffer(content, np.uint8).reshape(2, 97, 131)
        assert (found == truth[0].argmax(dim=1).numpy()).mean() >= 0.9999
        return
    sizes = np.cumsum([part.numel() for part in truth])[:-1]
    all_floats = np.split(np.frombuffer(content, np.float32), sizes)
    for expected, found in zip(truth, all_floats, strict=True):
        largest = expected.abs().max().item()
        assert np.abs(found - expected.numpy().ravel()).max() <= BOUND * largest
