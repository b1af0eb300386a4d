"""Boxes as truth: what is kept of them, and the crop that must keep some."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from PIL import Image
from torch import Generator, Tensor

from espnetv2.data.draws import integer, uniform
from espnetv2.data.views import View

_OVERLAPS = (None, 0.1, 0.3, 0.7, 0.9, 0.0)  # None: no crop; 0: any


class Boxes(NamedTuple):
    """The objects of one picture.

    Attributes:
        boxes: float32 (N, 4), x1 y1 x2 y2: pixels when read, shares of the picture in a batch.
        labels: int64 (N,), 1-based; 0 is background.
        difficult: bool (N,): left out of training, neither hit nor miss in VOC's score.
        crowd: bool (N,): a group under one box; left out of training, matched leniently by COCO.
        areas: float32 (N,), pixels of the object itself where known, of the box elsewhere.
        size: (height, width) of the picture, in pixels.
        name: The picture's name; COCO's image id as text.
    """

    boxes: Tensor
    labels: Tensor
    difficult: Tensor
    crowd: Tensor
    areas: Tensor
    size: tuple[int, int]
    name: str

    def trained(self) -> tuple[Tensor, Tensor]:
        """Boxes and labels that training uses."""
        kept = ~(self.difficult | self.crowd)
        return self.boxes[kept], self.labels[kept]

    def relative(self) -> Boxes:
        """The same with corners in shares of the picture."""
        height, width = self.size
        return self._replace(boxes=self.boxes / torch.tensor([width, height, width, height]))


@dataclass(frozen=True)
class BoxedSample:
    """A picture with its boxes."""

    image: Image.Image
    target: Boxes
    name: str


def crop_view(view: View, boxes: Tensor | None, generator: Generator) -> View:
    """A part of the view that shows an object well enough.

    One of six modes is drawn: no crop; a crop whose overlap (IoU) with some box is at least 0.1,
    0.3, 0.7 or 0.9; any crop. Sides are 0.3-1 of the view, the aspect 0.5-2, and at least one
    box's centre lies inside; 50 attempts, then another mode.

    Paper: ssd sec. 2.2 (data augmentation).
    Shape: boxes (N, 4), corners in pixels
    """
    for _ in range(100):
        overlap = _OVERLAPS[integer(generator, len(_OVERLAPS) - 1)]
        if overlap is None:
            return view
        for _ in range(50):
            width = uniform(generator, 0.3, 1.0) * view.width
            height = uniform(generator, 0.3, 1.0) * view.height
            if not 0.5 <= height / width <= 2.0:
                continue
            left = view.left + uniform(generator, 0.0, view.width - width)
            top = view.top + uniform(generator, 0.0, view.height - height)
            crop = View(left, top, width, height)
            if boxes is None or not len(boxes):
                return crop
            if _overlaps(boxes, crop).max() >= overlap and centred(boxes, crop).any():  # D78
                return crop
    return view


def centred(boxes: Tensor, view: View) -> Tensor:
    """Which boxes have their centre in the view; bool (N,)."""
    x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
    inside_x = (x > view.left) & (x < view.left + view.width)
    return inside_x & (y > view.top) & (y < view.top + view.height)


def _overlaps(boxes: Tensor, view: View) -> Tensor:
    x2, y2 = view.left + view.width, view.top + view.height
    wide = (boxes[:, 2].clamp(max=x2) - boxes[:, 0].clamp(min=view.left)).clamp(min=0)
    high = (boxes[:, 3].clamp(max=y2) - boxes[:, 1].clamp(min=view.top)).clamp(min=0)
    shared = wide * high
    own = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return shared / (own + view.width * view.height - shared)


def box_fault(corners: tuple[float, float, float, float]) -> str | None:
    """What is wrong with a box's shape, or None.

    >>> box_fault((5, 5, 2, 9)), box_fault((1, 1, 1, 4)), box_fault((0, 0, 1, 1))
    ('inverted', 'empty', None)
    """
    x1, y1, x2, y2 = corners
    if not all(map(math.isfinite, corners)):
        return "not a number"
    if x2 < x1 or y2 < y1:
        return "inverted"
    return "empty" if x2 == x1 or y2 == y1 else None
