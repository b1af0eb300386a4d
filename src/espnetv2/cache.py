"""Where this package keeps what it can make or fetch again."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """`ESPNETV2_CACHE`, else `~/.cache/espnetv2`; it need not be there."""
    named = os.environ.get("ESPNETV2_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "espnetv2"
