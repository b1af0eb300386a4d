"""Sizes on the command line: height first, as everywhere in this package."""

from __future__ import annotations

from espnetv2.errors import UserError


def parse_size(text: str) -> tuple[int, int]:
    """(height, width) of "HEIGHTxWIDTH", or of one number for a square.

    >>> parse_size("512x1024"), parse_size("224")
    ((512, 1024), (224, 224))
    """
    sides = text.lower().split("x")
    if not 1 <= len(sides) <= 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise UserError(f"size {text!r} is not HEIGHTxWIDTH, such as 512x1024")
    return int(sides[0]), int(sides[-1])
