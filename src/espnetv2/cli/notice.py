"""What a command says once, on standard error, beside its work."""

from __future__ import annotations

import sys
from importlib.util import find_spec


def say_engine(engine: str | None, device: str) -> None:
    """That torch computes where the native engine would, if it were built."""
    if engine is None and device == "cpu" and find_spec("espnetv2_native") is None:
        sys.stderr.write(
            "The native engine is not built here, so torch computes, several times slower: "
            'pip install "espnetv2[native]"\n'
        )


def say_kernels(kernels: str, device: str, *, aloud: bool = True) -> None:
    """That plain layers run where fused kernels were asked for.

    Raises:
        UserError: There are no such kernels.
    """
    from espnetv2.kernels.dispatch import choose

    notice = choose(kernels, device.partition(":")[0]).notice
    if notice and aloud:
        sys.stderr.write(f"{notice}\n")
