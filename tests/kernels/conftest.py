"""Kernels run on the GPU where there is one; else Triton interprets them, on the CPU."""

import pytest
import torch


@pytest.fixture
def device(monkeypatch):
    """Where the fused operators run: the GPU, or a CPU that interprets."""
    native = torch.cuda.is_available()
    if native:
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    else:
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    return "cuda" if native else "cpu"


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
