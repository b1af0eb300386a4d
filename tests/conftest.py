"""What every test may use: seeds, one thread, the folder with official weights and real data."""

import importlib
import importlib.util
import os
import pathlib

import pytest
import torch

# Triton decides to interpret kernels on the CPU when it is imported, and torch._dynamo imports it.
if importlib.util.find_spec("triton") and not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
    importlib.import_module("triton.language")
    for name in ("depthwise_pyramid", "grouped_pointwise", "norm_act"):
        importlib.import_module(f"espnetv2.kernels.{name}.launch")
    del os.environ["TRITON_INTERPRET"]


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder beside the project with weights, reference outputs and data; skips without it."""
    folder = pathlib.Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("the folder `shared` (weights, parity files, data) is not beside the project")
    return folder


@pytest.fixture(autouse=True)
def _reproducible():
    torch.manual_seed(0)
    torch.set_num_threads(1)  # two workers share two cores
    yield
    assert torch.get_default_dtype() == torch.float32
