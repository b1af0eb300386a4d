"""Tests of `benchmarks/` import its scripts by their names."""

import pathlib

import pytest
import torch

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    benchmark, precise = torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32
    yield
    torch._dynamo.reset()
    torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = benchmark, precise
