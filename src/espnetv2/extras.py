"""Optional dependencies, imported where they are used."""

from __future__ import annotations

import importlib
from types import ModuleType

from espnetv2.errors import UserError


def require(module: str, *, extra: str, advice: str = "") -> ModuleType:
    """Import an optional dependency or say which extra brings it.

    Args:
        advice: Goes behind the pip line.

    Raises:
        UserError: The module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise UserError(
            f'this needs the package {module!r}: pip install "espnetv2[{extra}]"'
            + (f", {advice}" if advice else "")
        ) from error
