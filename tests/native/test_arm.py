"""64-bit ARM, cross-compiled and emulated, says what torch says."""

import os

import numpy as np
import pytest
import torch

from deploy.lively import lively, parts
from deploy.rounding import calibration, distance, in_bytes
from espnetv2.deploy.fold import fold
from espnetv2.deploy.native_int8 import rank
from espnetv2.deploy.to_native import content_of
from espnetv2.models.catalog import entry
from native.conftest import HALF
from native.programs import TOOLCHAIN, built, done, need

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # compiles the engine

BOUND = 1e-5  # of the largest output


def programs_for_arm():
    need("cmake", "aarch64-linux-gnu-g++", "qemu-aarch64")
    return built(
        "compare",
        "contexts",
        ESPNETV2_TESTS="ON",
        CMAKE_TOOLCHAIN_FILE=str(TOOLCHAIN),
        CMAKE_EXE_LINKER_FLAGS="-static",
    )


def run_on_arm(file, isa, folder, processor="max", forced=True):
    """What the file's network gives for `images()`, as bytes; fails if other kernels ran."""
    programs = programs_for_arm()
    images().numpy().tofile(folder / "in.bin")
    said = done(
        "qemu-aarch64", "-cpu", processor, programs / "compare", file, folder / "in.bin",
        folder / "out.bin", 2, 97, 131, 2,
        env=os.environ | {"ESPNETV2_NATIVE_ISA": isa if forced else ""},
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


@pytest.mark.parametrize("isa", ["neon_bf16", "neon_fp16", "neon", "plain"])
@pytest.mark.parametrize(
    "name",
    [HALF, "espnetv2_s1_25", "espnetv2_seg_s2_0", "espnetv2_ssd300_s0_5", "shufflenetv1_g3_x1_0"],
)
def test_arm_in_halves_is_no_further_from_float_than_torch(name, isa, tmp_path):
    network, short = lively(entry(name).build()), lively(entry(name).build()).bfloat16()
    file = half_file(network, tmp_path)
    found = np.frombuffer(run_on_arm(file, isa, tmp_path), np.float32)
    with torch.inference_mode():
        truth, rounded = parts(network(images())), parts(short(images().bfloat16()))
    sizes = np.cumsum([part.numel() for part in truth])[:-1]
    for expected, other, own in zip(truth, rounded, np.split(found, sizes), strict=True):
        lost = distance(other.float().ravel(), expected.ravel())
        assert 1e-5 < distance(own, expected.ravel()) <= 1.2 * lost


def half_file(network, folder):
    file = folder / "half.espnetv2"
    file.write_bytes(content_of(fold(network), precision="bf16", notes={}))
    return file


def test_arm_has_no_ieee_halves_for_large_values(tmp_path):
    file = half_file(lively(entry("espnet_p2_q3").build()), tmp_path)  # up to 1e8
    run_on_arm(file, "neon", tmp_path, "cortex-a76", forced=False)


def run_bytes_on_arm(network, isa, folder, float_layers=()):
    options = {"precision": "int8", "notes": {}, "calibration": calibration()}
    file = folder / "bytes.espnetv2"
    file.write_bytes(content_of(network, float_layers=float_layers, **options))
    return np.frombuffer(run_on_arm(file, isa, folder), np.float32)


@pytest.mark.parametrize("isa", ["dotprod", "dotprod_bf16", "dotprod_fp16"])
@pytest.mark.parametrize("name", ["espnetv2_s1_25", "espnetv2_seg_s2_0"])
def test_arm_multiplies_bytes_as_torch_would(name, isa, tmp_path):
    network = fold(lively(entry(name).build()))
    found = run_bytes_on_arm(network, isa, tmp_path)
    with torch.inference_mode():
        truth, expected = network(images()).ravel(), in_bytes(network)(images()).ravel()
    lost = distance(expected, truth)
    assert 1e-3 < lost < 0.2  # bytes are far from floats
    assert distance(found, expected) <= (1.0 if isa == "dotprod" else 1.5) * lost


@pytest.mark.parametrize("place", [0, 3, -1])
def test_arm_rounds_one_layer_exactly(place, tmp_path):
    network = fold(lively(entry("espnetv2_s1_25").build()))
    layers = sorted(rank(network, calibration()))
    others = [one for one in layers if one != layers[place]]
    found = run_bytes_on_arm(network, "dotprod", tmp_path, float_layers=others)
    with torch.inference_mode():
        expected = in_bytes(network, others)(images()).ravel()
        lost = distance(expected, in_bytes(network, layers)(images()).ravel())
    assert distance(found, expected) <= 0.1 * lost


@pytest.mark.parametrize(
    ("processor", "name", "isa"),
    [
        ("cortex-a72", "half", "neon"),
        ("cortex-a72", "bytes", "neon"),
        ("cortex-a76", "half", "neon_fp16"),
        ("cortex-a76", "bytes", "dotprod_fp16"),
        ("max", "half", "neon_bf16"),
        ("max", "bytes", "dotprod_bf16"),
        ("max", HALF, "neon"),
    ],
)
def test_arm_takes_the_best_that_a_processor_has(processor, name, isa, files, tmp_path):
    run_on_arm(files[name], isa, tmp_path, processor, forced=False)


@pytest.mark.parametrize("processor", ["max", "cortex-a76"])
def test_arm_says_the_same_for_every_thread_count(processor, files):
    """In the best kernels for halves and for bytes, of several callers at once."""
    said = done(
        "qemu-aarch64", "-cpu", processor, programs_for_arm() / "contexts",
        files["half"], files["bytes"],
    )  # fmt: skip
    assert "2 models, 32 contexts, 0 unlike" in said
