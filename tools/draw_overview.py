"""Draws docs/figures/overview.jpg, the picture of the README: photographs and what a network sees.

ESPNETV2_WEIGHTS=FOLDER python tools/draw_overview.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

import espnetv2
from espnetv2.tasks.results import SegmentationMask

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "examples" / "pictures"
TARGET = ROOT / "docs" / "figures" / "overview.jpg"
WEIGHTS = "espnetv2_seg_s2_0.edgenets_voc_256"
HEIGHT, GAP = 260, 6
COLOURS = {"cat": (20, 170, 190), "person": (120, 90, 230)}


def seen(picture: Image.Image, result: SegmentationMask) -> Image.Image:
    """Things in colours of their own with a white outline; the background as it is."""
    drawn = picture
    for name, colour in COLOURS.items():
        inside = Image.fromarray(
            np.uint8(255) * (result.mask == result.classes.index(name)).astype(np.uint8)
        )
        layer = Image.new("RGB", picture.size, colour)
        drawn = Image.composite(Image.blend(drawn, layer, 0.55), drawn, inside)
        rim = inside.filter(ImageFilter.MaxFilter(5))
        rim = Image.fromarray(np.asarray(rim) - np.asarray(inside))
        drawn.paste((255, 255, 255), mask=rim)
    return drawn


def main() -> None:
    predictor = espnetv2.load(WEIGHTS)
    tiles = []
    for name in ("cat", "astronaut"):
        picture = Image.open(PICTURES / f"{name}.jpg").convert("RGB")
        size = (round(picture.width * HEIGHT / picture.height), HEIGHT)
        for one in (picture, seen(picture, predictor(picture))):
            tiles.append(one.resize(size, Image.Resampling.LANCZOS))
    sheet = Image.new("RGB", (sum(t.width + GAP for t in tiles) - GAP, HEIGHT), "white")
    left = 0
    for tile in tiles:
        sheet.paste(tile, (left, 0))
        left += tile.width + GAP
    sheet.save(TARGET, quality=88, optimize=True)


if __name__ == "__main__":
    main()
