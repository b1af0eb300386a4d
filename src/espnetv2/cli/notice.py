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
