"""Drawing results on pictures: overlays, legends, boxes, bars.

Everything scales with the picture, so that a thumbnail and a full frame read alike.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

_PANEL = (16, 18, 22, 205)
_INK = (245, 245, 245, 255)
_GOLDEN_RATIO = 0.618034  # successive hues land far apart, however many there are
_SMALLEST_SHARE = 0.005  # below half a per cent a class is noise in a legend


def overlay(
    image: Image.Image, mask: np.ndarray, palette: Sequence[Colour], *, opacity: float = 0.55
) -> Image.Image:
    """Colour each pixel by its class; borders between classes are drawn in full colour.

    Shape: mask (h, w) of any size, enlarged to the picture's
    """
    labels = Image.fromarray(mask)
    if labels.size != image.size:
        labels = labels.resize(image.size, Image.Resampling.NEAREST)
    indices = np.array(labels)
    colours = np.asarray(palette, dtype=np.float32)[indices]  # (H, W, 3)
    strength = np.where(_borders(indices), 1.0, opacity)[..., None].astype(np.float32)
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    mixed = pixels * (1 - strength) + colours * strength
    return Image.fromarray(mixed.round().astype(np.uint8))


def legend(
    image: Image.Image, shares: Mapping[str, float], colours: Mapping[str, Colour]
) -> Image.Image:
    """A panel with a swatch, the name and the share of each class, largest first.

    Classes below half a per cent, and those for which there is no room, are summed up in a last
    line.
    """
    shown = [(name, share) for name, share in shares.items() if share >= _SMALLEST_SHARE]
    font, line = _font(image)
    room = max(1, int(image.height * 0.9) // line - 2)
    if len(shown) > room:
        shown = shown[:room]
    rows = [(name, f"{share:.1%}", colours[name]) for name, share in shown]
    if rest := len(shares) - len(shown):
        share = 1 - sum(share for _, share in shown)
        rows.append((f"{rest} more", f"{share:.1%}", (90, 90, 90)))
    canvas, layer = _layer(image)
    names = max((font.getlength(name) for name, _, _ in rows), default=0)
    values = max((font.getlength(value) for _, value, _ in rows), default=0)
    pad, swatch = line // 2, int(line * 0.7)
    width, height = int(swatch + names + values + 4 * pad), line * len(rows) + pad
    left, top = pad, image.height - height - pad
    layer.rounded_rectangle((left, top, left + width, top + height), pad, fill=_PANEL)
    for row, (name, value, colour) in enumerate(rows):
        y, x = top + pad // 2 + row * line, left + pad
        offset = (line - swatch) // 2
        box = (x, y + offset, x + swatch, y + offset + swatch)
        layer.rounded_rectangle(box, swatch // 4, fill=(*colour, 255), outline=(255, 255, 255, 120))
        middle = y + line / 2
        layer.text((x + swatch + pad, middle), name, fill=_INK, font=font, anchor="lm")
        layer.text((left + width - pad, middle), value, fill=_INK, font=font, anchor="rm")
    return _merge(image, canvas)


def boxes(
    image: Image.Image,
    corners: np.ndarray,
    labels: np.ndarray,
    scores: np.ndarray,
    classes: Sequence[str],
) -> Image.Image:
    """Boxes with captions, the best on top.

    Shape: corners (N, 4) x1 y1 x2 y2 in pixels, labels (N,), scores (N,)
    """
    font, line = _font(image)
    canvas, layer = _layer(image)
    stroke = max(1, round(min(image.size) / 200))
    for corner, label, score in reversed(list(zip(corners, labels, scores, strict=True))):
        colour = class_colour(int(label))
        x1, y1, x2, y2 = _inside([float(side) for side in corner], image.size)
        layer.rectangle((x1, y1, x2, y2), outline=(*colour, 255), width=stroke)
        caption = f"{classes[int(label)]} {score:.0%}"
        width = font.getlength(caption) + line // 2
        left = max(0.0, min(x1, image.width - width))
        # above the box, or inside it where the picture ends
        top = y1 - line if y1 >= line else y1
        layer.rectangle((left, top, left + width, top + line), fill=(*colour, 255))
        place = (left + line // 4, top + line / 2)
        layer.text(place, caption, fill=_readable_on(colour), font=font, anchor="lm")
    return _merge(image, canvas)


def bars(image: Image.Image, labels: Sequence[str], scores: Sequence[float]) -> Image.Image:
    """A panel with the name, a bar and the per cent of each class."""
    font, line = _font(image)
    canvas, layer = _layer(image)
    pad = line // 2
    values = [f"{score:.1%}" for score in scores]
    value_width = max((font.getlength(value) for value in values), default=0)
    bar_width = min(image.width * 0.25, line * 8)
    room = image.width - bar_width - value_width - 6 * pad
    names = [_shortened(label, font, room) for label in labels]
    name_width = max((font.getlength(name) for name in names), default=0)
    width = int(name_width + bar_width + value_width + 4 * pad)
    height = line * len(names) + pad
    left, top = pad, image.height - height - pad
    layer.rounded_rectangle((left, top, left + width, top + height), pad, fill=_PANEL)
    for row, (name, value, score) in enumerate(zip(names, values, scores, strict=True)):
        y, middle = top + pad // 2 + row * line, top + pad // 2 + (row + 0.5) * line
        x = left + 2 * pad + name_width
        layer.text((left + pad, middle), name, fill=_INK, font=font, anchor="lm")
        trough = (x, y + line * 0.25, x + bar_width, y + line * 0.75)
        layer.rectangle(trough, fill=(255, 255, 255, 40))
        full = (x, trough[1], x + bar_width * score, trough[3])
        layer.rectangle(full, fill=(*class_colour(0), 255) if row == 0 else (150, 160, 175, 255))
        layer.text((left + width - pad, middle), value, fill=_INK, font=font, anchor="rm")
    return _merge(image, canvas)


def class_colour(index: int) -> Colour:
    """A bright colour for a class number; neighbours differ clearly.

    >>> class_colour(0)
    (51, 173, 242)
    """
    hue = (0.56 + index * _GOLDEN_RATIO) % 1.0
    # every eighth hue is nearly the same, so each eight take another tone
    saturation, value = ((0.79, 0.95), (0.9, 0.7), (0.45, 0.98))[index // 8 % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _font(image: Image.Image) -> tuple[ImageFont.FreeTypeFont | ImageFont.ImageFont, int]:
    """A font that fits the picture, and its line height in pixels."""
    size = max(9, min(48, round(min(image.size) / 26)))
    return ImageFont.load_default(size), round(size * 1.45)


def _layer(image: Image.Image) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    canvas = Image.new("RGBA", image.size, (0, 0, 0, 0))
    return canvas, ImageDraw.Draw(canvas)


def _merge(image: Image.Image, canvas: Image.Image) -> Image.Image:
    return Image.alpha_composite(image.convert("RGBA"), canvas).convert("RGB")


def _borders(labels: np.ndarray) -> np.ndarray:
    edges = np.zeros(labels.shape, dtype=bool)
    edges[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edges[1:] |= labels[1:] != labels[:-1]
    return edges


def _inside(box: Sequence[float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """The box cut to the picture, its corners in order, whatever the network said."""
    width, height = size
    x1, y1 = min(max(box[0], 0), width - 1), min(max(box[1], 0), height - 1)
    return x1, y1, max(x1, min(box[2], width - 1)), max(y1, min(box[3], height - 1))


def _readable_on(colour: Colour) -> tuple[int, int, int, int]:
    """Black or white, whichever stands out."""
    light = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    return (0, 0, 0, 255) if light > 140 else (255, 255, 255, 255)


def _shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: float) -> str:
    if font.getlength(text) <= room:
        return text
    while len(text) > 1 and font.getlength(text + "...") > room:
        text = text[:-1]
    return text + "..."
