"""Augmentation policies by name: which view of a picture is drawn, and how it is recoloured.

Everything is drawn from the generator that is handed in, so a sample depends on nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from PIL import Image
from torch import Generator, Tensor

from espnetv2.data.boxes import crop_view
from espnetv2.data.colours import distort, jitter
from espnetv2.data.draws import chance, integer, uniform
from espnetv2.data.views import View, whole
from espnetv2.errors import UserError, unknown

Draw = Callable[[Image.Image, "tuple[int, int]", "Tensor | None", Generator], View]
"""Picture, output (height, width), boxes if there are any, generator -> the view to show."""

Recolour = Callable[[Image.Image, Generator], Image.Image]


@dataclass(frozen=True)
class Policy:
    """How training samples are varied.

    Attributes:
        draw: Chooses the view; None shows what validation shows.
        recolour: Changes the colours of the resized picture.
        outside: What the picture is padded with.
        sharp: Lanczos resizing, as in EdgeNets' segmentation.
        tasks: Where the policy makes sense.
    """

    draw: Draw | None
    tasks: tuple[str, ...]
    recolour: Recolour | None = None
    outside: Literal["mean", "black"] = "mean"
    sharp: bool = False


def policy(name: str, *, task: str) -> Policy:
    """A policy by name.

    Raises:
        UserError: There is none of that name, or it is for other tasks.
    """
    if name not in POLICIES:
        raise unknown("augmentation", name, POLICIES)
    found = POLICIES[name]
    if task not in found.tasks:
        fitting = [key for key, value in POLICIES.items() if task in value.tasks]
        raise UserError(
            f"augmentation {name!r} is for {' and '.join(found.tasks)}, not {task}; "
            f"choose from {', '.join(fitting)}"
        )
    return found


def inception_view(
    image: Image.Image,
    size: tuple[int, int],
    boxes: Tensor | None,
    generator: Generator,
    *,
    smallest: float,
) -> View:
    """Torchvision's RandomResizedCrop and a flip: area from `smallest` to 1, aspect 3/4 to 4/3."""
    del size, boxes
    mirrored = chance(generator)
    for _ in range(10):
        area = uniform(generator, smallest, 1.0) * image.width * image.height
        aspect = math.exp(uniform(generator, math.log(3 / 4), math.log(4 / 3)))
        width, height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < width <= image.width and 0 < height <= image.height:
            left = integer(generator, image.width - width)
            top = integer(generator, image.height - height)
            return View(left, top, width, height, mirrored)
    width = min(image.width, round(image.height * 4 / 3))  # an extreme aspect: crop the middle
    height = min(image.height, round(image.width * 4 / 3))
    return View((image.width - width) // 2, (image.height - height) // 2, width, height, mirrored)


def fitted_view(
    image: Image.Image, size: tuple[int, int], boxes: Tensor | None, generator: Generator
) -> View:
    """Scale 0.5-2 (log-uniform) about what validation shows, a random crop or place, a flip."""
    del boxes
    mirrored = chance(generator)
    zoom = _log_uniform(generator, 0.5, 2.0)
    width, height = image.width / zoom, image.height / zoom
    left = _anywhere(generator, image.width - width)
    top = _anywhere(generator, image.height - height)
    return View(left, top, width, height, mirrored)


def edgenets_voc_view(
    image: Image.Image, size: tuple[int, int], boxes: Tensor | None, generator: Generator
) -> View:
    """Scale 0.5-2 of the picture's own pixels; small ones in the middle, large ones cropped."""
    del boxes
    return _edgenets_view(image, size, generator, 0.5, 2.0)


def edgenets_city_view(
    image: Image.Image, size: tuple[int, int], boxes: Tensor | None, generator: Generator
) -> View:
    """Scale 0.25-0.5 for inputs up to 512 wide, 0.35-1 above, as for the 2048x1024 pictures."""
    del boxes
    low, high = (0.25, 0.5) if size[1] <= 512 else (0.35, 1.0)
    return _edgenets_view(image, size, generator, low, high)


def _edgenets_view(
    image: Image.Image, size: tuple[int, int], generator: Generator, low: float, high: float
) -> View:
    mirrored = chance(generator)
    scale = _log_uniform(generator, low, high)
    large = (max(1, int(image.width * scale)), max(1, int(image.height * scale)))
    across, down = image.width / large[0], image.height / large[1]
    left = _middle_or_crop(generator, large[0] - size[1])
    top = _middle_or_crop(generator, large[1] - size[0])
    return View(left * across, top * down, size[1] * across, size[0] * down, mirrored)


def ssd_view(
    image: Image.Image, size: tuple[int, int], boxes: Tensor | None, generator: Generator
) -> View:
    """Expansion, the crop that keeps an object, and a flip."""
    del size
    view = whole(image)
    if chance(generator):
        ratio = uniform(generator, 1.0, 4.0)
        width, height = image.width * ratio, image.height * ratio
        left = -uniform(generator, 0.0, width - image.width)
        top = -uniform(generator, 0.0, height - image.height)
        view = View(left, top, width, height)
    view = crop_view(view, boxes, generator)
    return View(view.left, view.top, view.width, view.height, chance(generator))


def _log_uniform(generator: Generator, low: float, high: float) -> float:
    return math.exp(uniform(generator, math.log(low), math.log(high)))


def _anywhere(generator: Generator, room: float) -> float:
    return uniform(generator, min(0.0, room), max(0.0, room))


def _middle_or_crop(generator: Generator, room: int) -> int:
    return integer(generator, room) if room > 0 else -((-room) // 2)


_PICTURES = ("classification", "multilabel")

POLICIES: Mapping[str, Policy] = {
    "none": Policy(None, (*_PICTURES, "segmentation", "detection")),
    "imagenet": Policy(partial(inception_view, smallest=0.08), _PICTURES),
    "imagenet-light": Policy(partial(inception_view, smallest=0.35), _PICTURES),
    "camvid": Policy(fitted_view, ("segmentation",), partial(jitter, strength=0.25)),
    "edgenets-voc": Policy(edgenets_voc_view, ("segmentation",), outside="black", sharp=True),
    "edgenets-city": Policy(edgenets_city_view, ("segmentation",), outside="black", sharp=True),
    "ssd": Policy(ssd_view, ("detection",), distort),
}
"""Every policy by name."""
