"""Draws examples/pictures/street.jpg: a street for the demo that belongs to nobody.

python tools/draw_street.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = (960, 720)
HORIZON, VANISHING = 330, 500
TARGET = Path(__file__).parents[1] / "examples" / "pictures" / "street.jpg"


def draw() -> Image.Image:
    """The picture; always the same."""
    rng = np.random.default_rng(8)
    sky = np.linspace((196, 212, 230), (236, 238, 238), SIZE[1])[:, None].repeat(SIZE[0], 1)
    picture = Image.fromarray(sky.astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for near, far, colour in (
        (0, 190, (122, 96, 80)),
        (190, 300, (150, 132, 112)),
        (300, 380, (128, 118, 108)),
        (960, 800, (140, 120, 104)),
        (800, 690, (112, 96, 90)),
        (690, 620, (134, 122, 110)),
    ):
        facade(pen, near, far, colour, roof=int(rng.integers(-60, 40)))
    ground(pen)
    for x, base, height in ((235, 440, 300), (330, 400, 170), (735, 430, 270), (650, 392, 150)):
        tree(picture, rng, x, base, height)
    for x, y, width, colour in (
        (585, 402, 110, (120, 24, 28)),
        (452, 378, 46, (40, 52, 78)),
        (310, 470, 170, (34, 44, 66)),
    ):
        car(pen, x, y, width, colour)
    for x, base, height in ((180, 520, 420), (820, 500, 390), (372, 402, 150)):
        pen.rectangle((x, base - height, x + max(3, height // 60), base), fill=(70, 72, 74))
    soft = picture.filter(ImageFilter.GaussianBlur(1.6))
    pixels = np.asarray(soft, dtype=np.float32)
    coarse = rng.normal(0, 1, (SIZE[1] // 6, SIZE[0] // 6)).astype(np.float32)
    grain = np.asarray(Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC))
    noisy = pixels * 0.82 + 5 * grain[..., None] + rng.normal(0, 4, pixels.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def along(x: float, y: float, share: float) -> tuple[float, float]:
    """A point on the way from (x, y) to the vanishing point."""
    return x + (VANISHING - x) * share, y + (HORIZON - y) * share


def facade(
    pen: ImageDraw.ImageDraw, near: int, far: int, colour: tuple[int, int, int], *, roof: int
) -> None:
    """A house front between two columns, in perspective, with rows of windows."""

    def height(x: int) -> tuple[float, float]:
        scale = abs(x - VANISHING) / 500
        return HORIZON - (330 - roof) * scale - 20, HORIZON + 210 * scale

    (top, low), (top_far, low_far) = height(near), height(far)
    pen.polygon([(near, top), (far, top_far), (far, low_far), (near, low)], fill=colour)
    dark = tuple(int(c * 0.45) for c in colour)
    columns, rows = 5, 5
    for row in range(rows):
        for column in range(columns):
            corners = []
            for u, v in ((0.2, 0.2), (0.8, 0.2), (0.8, 0.75), (0.2, 0.75)):
                a, b = (column + u) / columns, (row + v) / (rows + 0.6)
                x = near + (far - near) * a
                up, down = top + (top_far - top) * a, low + (low_far - low) * a
                corners.append((x, up + (down - up) * b))
            pen.polygon(corners, fill=dark)


def ground(pen: ImageDraw.ImageDraw) -> None:
    """Pavements, kerbs, road and lane marks."""
    end = (VANISHING, HORIZON + 6)
    pen.polygon([(0, 545), end, (960, 530), (960, 720), (0, 720)], fill=(150, 146, 142))
    pen.polygon([(-260, 720), end, (1260, 720)], fill=(96, 98, 102))
    pen.line([(-260, 720), end], fill=(176, 174, 170), width=5)
    pen.line([(1260, 720), end], fill=(176, 174, 170), width=5)
    for start in (0.0, 0.3, 0.52, 0.68, 0.79, 0.87):
        a, b = along(470, 720, start), along(470, 720, start + (1 - start) * 0.16)
        width = 16 * (1 - start)
        pen.polygon(
            [(a[0] - width, a[1]), (a[0] + width, a[1]), (b[0] + width * 0.8, b[1]), (b[0], b[1])],
            fill=(206, 206, 202),
        )


def tree(picture: Image.Image, rng: np.random.Generator, x: int, base: int, height: int) -> None:
    """A trunk and a crown of many leaves."""
    pen = ImageDraw.Draw(picture)
    wide = max(4, height // 22)
    pen.rectangle((x - wide // 2, base - height * 2 // 3, x + wide // 2, base), fill=(62, 50, 40))
    for _ in range(height * 12):
        angle, far = rng.uniform(0, 6.28), height * 0.33 * np.sqrt(rng.uniform())
        u, v = x + far * np.cos(angle), base - height * 0.72 + far * np.sin(angle)
        r = height / 70 + 1.2
        green = int(rng.choice((28, 40, 56, 84, 120, 150)))
        pen.ellipse((u - r, v - r, u + r, v + r), fill=(green - 8, green, green // 2))


def car(pen: ImageDraw.ImageDraw, x: int, y: int, width: int, colour: tuple[int, int, int]) -> None:
    """A car from behind."""
    height = int(width * 0.72)
    pen.ellipse((x - 4, y + height - 12, x + width + 4, y + height + 8), fill=(44, 44, 46))
    pen.rounded_rectangle(
        (x, y + height * 0.36, x + width, y + height * 0.9), width * 0.08, fill=colour
    )
    pen.polygon(
        [
            (x + width * 0.08, y + height * 0.4),
            (x + width * 0.2, y),
            (x + width * 0.8, y),
            (x + width * 0.92, y + height * 0.4),
        ],
        fill=colour,
    )
    pen.polygon(
        [
            (x + width * 0.15, y + height * 0.38),
            (x + width * 0.24, y + height * 0.07),
            (x + width * 0.76, y + height * 0.07),
            (x + width * 0.85, y + height * 0.38),
        ],
        fill=(38, 46, 54),
    )
    for side in (0.03, 0.8):
        light = (x + width * side, y + height * 0.45, x + width * (side + 0.17), y + height * 0.58)
        pen.rectangle(light, fill=(176, 30, 26))
        wheel = (x + width * side, y + height * 0.82, x + width * (side + 0.17), y + height * 1.02)
        pen.rectangle(wheel, fill=(20, 20, 22))


if __name__ == "__main__":
    draw().save(TARGET, quality=90)
