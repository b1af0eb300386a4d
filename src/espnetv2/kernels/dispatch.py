"""Which kernels run where; the one place that asks for Triton."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import import_module
from typing import Literal, get_args

from espnetv2.errors import UserError

Kernels = Literal["reference", "fused", "auto"]
"""Plain layers, fused operators, or the faster of both for the device."""


@dataclass(frozen=True)
class Selection:
    """What `choose` says.

    Attributes:
        fused: Whether the fused operators run.
        notice: Why they do not although they were asked for; empty otherwise.
    """

    fused: bool
    notice: str = ""


def choose(kernels: str, device: str) -> Selection:
    """Decide for a device; asking for what is not there is no error.

    Args:
        device: Kind of the device: "cpu", "cuda", ...

    Raises:
        UserError: `kernels` is none of `Kernels`.

    >>> choose("auto", "cpu")
    Selection(fused=False, notice='')
    """
    if kernels not in get_args(Kernels):
        raise UserError(f"kernels {kernels!r} is unknown; choose reference, fused or auto")
    if kernels == "reference" or (kernels == "auto" and device != "cuda"):
        return Selection(fused=False)
    if runs_on(device):
        return Selection(fused=True)
    lacking = (
        "Triton cannot be imported here" if device == "cuda" else f"{device} is no GPU of CUDA"
    )
    told = f"The fused kernels do not run ({lacking}); the plain layers give the same results."
    return Selection(fused=False, notice=told if kernels == "fused" else "")


def runs_on(device: str) -> bool:
    """Whether the Triton kernels run on this kind of device: a GPU, or a CPU that interprets."""
    return (device == "cuda" or (device == "cpu" and interpreted())) and _has_triton()


def interpreted() -> bool:
    """Whether Triton was told, before it was imported, to interpret kernels on the CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def _has_triton() -> bool:
    try:
        import_module("triton")
    except ImportError:  # not installed, or not for this system
        return False
    return True
