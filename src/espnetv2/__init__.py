"""Light-weight networks built from the EESP unit: create, load, predict.

Not the speech toolkit ESPnet. Importing this package does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from espnetv2.models.catalog import list_models

if TYPE_CHECKING:
    from espnetv2.predict.predictor import load
    from espnetv2.weights.load import create_model

__all__ = ["create_model", "list_models", "load"]


def __getattr__(name: str) -> Any:
    if name == "create_model":
        from espnetv2.weights.load import create_model

        return create_model
    if name == "load":
        from espnetv2.predict.predictor import load

        return load
    if name == "__version__":
        from importlib.metadata import version

        return version("espnetv2")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
