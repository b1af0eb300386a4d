"""Boxes as truth: what is kept of them, and the crop that must keep some."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from PIL import Image
from torch import Generator, Tensor

from espnetv2.data.draws import integer
from espnetv2.data.views import View

_TRIALS = 50
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
        crops = _candidates(view, generator)
        fits = (crops[:, 3] <= 2 * crops[:, 2]) & (crops[:, 2] <= 2 * crops[:, 3])  # (T,)
        if boxes is not None and len(boxes):
            ious = _overlaps(boxes, crops)  # (T, N)
            fits &= ious.amax(1) >= overlap  # D78
            fits &= _centred(boxes, crops).any(1)
        if bool(fits.any()):
            left, top, width, height = crops[int(fits.int().argmax())].tolist()
            return View(left, top, width, height)
    return view


def centred(boxes: Tensor, view: View) -> Tensor:
    """Which boxes have their centre in the view; bool (N,)."""
    return _centred(boxes, torch.tensor([[view.left, view.top, view.width, view.height]]))[0]


def _candidates(view: View, generator: Generator) -> Tensor:
    """Random parts of a view: left, top, width, height; (T, 4)."""
    draws = torch.rand(_TRIALS, 4, generator=generator)
    whole = torch.tensor([view.width, view.height])
    sides = (0.3 + 0.7 * draws[:, :2]) * whole
    corner = torch.tensor([view.left, view.top]) + draws[:, 2:] * (whole - sides)
    return torch.cat([corner, sides], dim=1)


def _centred(boxes: Tensor, crops: Tensor) -> Tensor:
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2  # (N, 2)
    low, high = crops[:, None, :2], (crops[:, :2] + crops[:, 2:])[:, None]  # (T, 1, 2)
    return ((middle > low) & (middle < high)).all(-1)  # (T, N)


def _overlaps(boxes: Tensor, crops: Tensor) -> Tensor:
    low = torch.maximum(boxes[:, :2], crops[:, None, :2])  # (T, N, 2)
    high = torch.minimum(boxes[:, 2:], (crops[:, :2] + crops[:, 2:])[:, None])
    shared = (high - low).clamp(min=0).prod(-1)  # (T, N)
    own = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    return shared / (own + crops[:, 2:].prod(-1, keepdim=True) - shared)


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
