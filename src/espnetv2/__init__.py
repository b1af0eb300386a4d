"""Light-weight networks built from the EESP unit: create, load, predict.

Not the speech toolkit ESPnet. Importing this package does not import torch.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from espnetv2.models.catalog import list_models

if TYPE_CHECKING:
    from espnetv2.predict.predictor import load
    from espnetv2.weights.load import create_model

__all__ = ["create_model", "list_models", "load"]

try:
    __version__ = version("espnetv2")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0"


def __getattr__(name: str) -> Any:
    if name == "create_model":
        from espnetv2.weights.load import create_model

        return create_model
    if name == "load":
        from espnetv2.predict.predictor import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
