"""Kernels run on the GPU where there is one; else Triton interprets them, on the CPU.

Triton decides when it is imported, so this imports it before any test runs.
"""

import importlib
import os
import sys

import pytest
import torch

NATIVE = torch.cuda.is_available()

if not NATIVE:
    assert "triton" not in sys.modules, "a test module imports Triton, so it cannot interpret"
    os.environ["TRITON_INTERPRET"] = "1"
    for name in ("triton.language", "espnetv2.kernels.depthwise_pyramid.launch"):
        importlib.import_module(name)
    del os.environ["TRITON_INTERPRET"]


@pytest.fixture
def device(monkeypatch):
    """Where the fused operators run: the GPU, or a CPU that interprets."""
    if not NATIVE:
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    return "cuda" if NATIVE else "cpu"


@pytest.fixture
def poisoned(monkeypatch):
    """Fresh memory holds NaN, so that what a kernel forgets is found."""
    for name in ("empty", "empty_like"):
        monkeypatch.setattr(torch, name, _filled(getattr(torch, name)))


def _filled(make):
    def poison(*arguments, **options):
        made = make(*arguments, **options)
        return made.fill_(float("nan")) if made.is_floating_point() else made

    return poison
