"""64-bit ARM, cross-compiled and emulated, says what torch says."""

import os

import numpy as np
import pytest
import torch

from deploy.lively import parts
from native.conftest import HALF
from native.programs import TOOLCHAIN, built, done, need

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # compiles the engine

BOUND = 1e-5  # of the largest output


def run_on_arm(file, isa, folder):
    """What the file's network gives for `images()`, as bytes."""
    need("cmake", "aarch64-linux-gnu-g++", "qemu-aarch64")
    programs = built(
        "compare",
        ESPNETV2_TESTS="ON",
        CMAKE_TOOLCHAIN_FILE=str(TOOLCHAIN),
        CMAKE_EXE_LINKER_FLAGS="-static",
    )
    images().numpy().tofile(folder / "in.bin")
    said = done(
        "qemu-aarch64", programs / "compare", file, folder / "in.bin",
        folder / "out.bin", 2, 97, 131, 2,
        env=os.environ | {"ESPNETV2_NATIVE_ISA": isa},
    )  # fmt: skip
    assert said.split("\n")[0] == isa
    return (folder / "out.bin").read_bytes()


def images():
    return torch.randn(2, 3, 97, 131, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("isa", ["neon", "plain"])
@pytest.mark.parametrize(
    "name", ["espnetv2_s0_5", "espnetv2_seg_s0_5", "espnetv2_ssd300_s0_5", "shufflenetv1_g3_x0_25"]
)
def test_arm_is_torch(name, isa, networks, files, tmp_path):
    content = run_on_arm(files[name], isa, tmp_path)
    with torch.inference_mode():
        truth = parts(networks[name](images()))
    if name == "espnetv2_seg_s0_5":
        found = np.frombuffer(content, np.uint8).reshape(2, 97, 131)
        assert (found == truth[0].argmax(dim=1).numpy()).mean() >= 0.9999
        return
    sizes = np.cumsum([part.numel() for part in truth])[:-1]
    all_floats = np.split(np.frombuffer(content, np.float32), sizes)
    for expected, found in zip(truth, all_floats, strict=True):
        largest = expected.abs().max().item()
        assert np.abs(found - expected.numpy().ravel()).max() <= BOUND * largest


@pytest.mark.parametrize("isa", ["neon", "plain"])
def test_arm_in_bfloat16_is_nearly_torch(isa, networks, files, tmp_path):
    found = np.frombuffer(run_on_arm(files["half"], isa, tmp_path), np.float32).reshape(2, -1)
    with torch.inference_mode():
        truth = networks[HALF](images()).numpy()
    assert 1e-5 < np.abs(found - truth).max() / np.abs(truth).max() <= 0.01
