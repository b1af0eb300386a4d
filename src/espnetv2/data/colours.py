"""Changes of colour, on bytes: fast, and clipped to 0-255."""

from __future__ import annotations

from collections.abc import Callable

import torch
from PIL import Image, ImageStat
from torch import Generator

from espnetv2.data.draws import chance, uniform


def jitter(image: Image.Image, generator: Generator, *, strength: float) -> Image.Image:
    """Brightness, contrast and saturation, each times 1 - strength to 1 + strength."""
    low, high = 1 - strength, 1 + strength
    brightness, contrast = uniform(generator, low, high), uniform(generator, low, high)
    saturation = uniform(generator, low, high)
    grey = image.convert("L")
    mean = ImageStat.Stat(grey).mean[0] * brightness
    image = Image.blend(grey.convert("RGB"), image, saturation)
    return _map(image, lambda x: (x * brightness - mean) * contrast + mean)


def distort(image: Image.Image, generator: Generator) -> Image.Image:
    """SSD's photometric distortion, each part with probability 1/2.

    Brightness up to 32 levels, contrast 0.5-1.5 before or after saturation 0.5-1.5 and hue up to
    18 degrees, at last another order of the channels.
    """
    shift = uniform(generator, -32, 32) if chance(generator) else 0.0
    contrast = uniform(generator, 0.5, 1.5) if chance(generator) else 1.0
    early = chance(generator)
    saturation = uniform(generator, 0.5, 1.5) if chance(generator) else 1.0
    hue = uniform(generator, -18, 18) if chance(generator) else 0.0
    image = _map(image, lambda x: (x + shift) * (contrast if early else 1.0))
    image = _turn(image, saturation, hue)
    if not early:
        image = _map(image, lambda x: x * contrast)
    if chance(generator):
        bands = image.split()
        order = torch.randperm(3, generator=generator).tolist()
        image = Image.merge("RGB", [bands[i] for i in order])
    return image


def _turn(image: Image.Image, saturation: float, hue: float) -> Image.Image:
    if saturation == 1.0 and hue == 0.0:
        return image
    steps = round(hue * 256 / 360)
    h, s, v = image.convert("HSV").split()
    h = h.point([(level + steps) % 256 for level in range(256)])
    s = s.point(_table(lambda x: x * saturation))
    return Image.merge("HSV", (h, s, v)).convert("RGB")


def _map(image: Image.Image, curve: Callable[[float], float]) -> Image.Image:
    return image.point(_table(curve) * 3)


def _table(curve: Callable[[float], float]) -> list[int]:
    return [min(255, max(0, round(curve(level)))) for level in range(256)]
