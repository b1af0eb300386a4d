"""A view: which part of a picture a training sample shows, mirrored or not.

Pictures, label maps and boxes are cut by the same view, so they stay aligned whatever the policy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from espnetv2.data.preprocess import Preprocessing


@dataclass(frozen=True)
class View:
    """A window over a picture, which may reach beyond it.

    Attributes:
        left: Pixels of the picture, as are `top`, `width` and `height`.
        mirrored: Whether left and right are exchanged after cutting.
    """

    left: float
    top: float
    width: float
    height: float
    mirrored: bool = False


def whole(image: Image.Image) -> View:
    """The view of all of a picture."""
    return View(0.0, 0.0, float(image.width), float(image.height))


def cut_image(
    image: Image.Image,
    view: View,
    preprocessing: Preprocessing,
    *,
    recolour: Callable[[Image.Image], Image.Image] | None = None,
    outside: Literal["mean", "black"] = "mean",
    sharp: bool = False,
) -> Tensor:
    """The view as a network's input, at the preprocessing's size.

    Only the part that is seen is resized, on bytes; normalising comes last.

    Shape: picture (W, H) -> float32 (3, *size)

    Args:
        recolour: Applied to the resized bytes, before padding.
        outside: What lies beyond the picture: the mean colour, which is 0 for the network, or
            black before normalising.
        sharp: Lanczos instead of the preprocessing's own bilinear filter.
    """
    assert preprocessing.size is not None
    height, width = preprocessing.size
    rows = _span(view.top, view.height, height, image.height)
    columns = _span(view.left, view.width, width, image.width)
    part = _resize(image, view, (height, width), rows, columns, preprocessing, sharp=sharp)
    if recolour is not None:
        part = recolour(part)
    # contiguous: stacking a batch of channels-last pictures would cost more than this copy
    pixels = torch.from_numpy(np.array(part)).permute(2, 0, 1).contiguous()  # (3, h, w)
    pad = (columns[0], width - columns[1], rows[0], height - rows[1])
    if outside == "black" and any(pad):
        pixels, pad = F.pad(pixels, pad), (0, 0, 0, 0)
    tensor = _normalized(pixels, preprocessing)
    if any(pad):
        tensor = F.pad(tensor, pad)  # (3, H, W)
    return tensor.flip(-1) if view.mirrored else tensor


def cut_mask(mask: np.ndarray, view: View, size: tuple[int, int], *, outside: int = 255) -> Tensor:
    """The view of a label map, by nearest pixel.

    Shape: uint8 (H, W) -> int64 (*size)
    """
    height, width = size
    rows = _span(view.top, view.height, height, mask.shape[0])
    columns = _span(view.left, view.width, width, mask.shape[1])
    ys = _nearest(view.top, view.height, height, rows, mask.shape[0])
    xs = _nearest(view.left, view.width, width, columns, mask.shape[1])
    labels = np.full((height, width), outside, dtype=np.int64)
    labels[slice(*rows), slice(*columns)] = mask[ys][:, xs]
    tensor = torch.from_numpy(labels)
    return tensor.flip(-1) if view.mirrored else tensor


def cut_boxes(boxes: Tensor, view: View) -> Tensor:
    """Boxes in shares of the view, clipped to it; the caller drops those that left it.

    Shape: (N, 4) corners in pixels of the picture -> (N, 4) corners in 0-1
    """
    origin = torch.tensor([view.left, view.top, view.left, view.top])
    extent = torch.tensor([view.width, view.height, view.width, view.height])
    relative = ((boxes - origin) / extent).clamp(0, 1)
    if view.mirrored:
        x1, y1, x2, y2 = relative.unbind(-1)
        relative = torch.stack([1 - x2, y1, 1 - x1, y2], dim=-1)
    return relative


def _normalized(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    """What `Preprocessing` computes, in two passes in place: ten times faster, equal to 1e-6."""
    scale, offset = _affine(preprocessing)
    values = pixels.flip(-3) if preprocessing.order == "bgr" else pixels
    return values.float().mul_(scale).add_(offset)


@lru_cache(maxsize=16)
def _affine(preprocessing: Preprocessing) -> tuple[Tensor, Tensor]:
    mean = torch.tensor(preprocessing.mean, dtype=torch.float64)[:, None, None]
    std = torch.tensor(preprocessing.std, dtype=torch.float64)[:, None, None]
    unit, divisor = preprocessing.unit, preprocessing.divisor
    return (1 / (unit * std * divisor)).float(), (-mean / (std * divisor)).float()


def _span(start: float, extent: float, pixels: int, limit: int) -> tuple[int, int]:
    """First and last + 1 of the output pixels whose centre lies in the picture; at least one."""
    step = extent / pixels
    first = min(max(0, math.ceil(-start / step - 0.5 - 1e-6)), pixels - 1)
    last = min(pixels, math.ceil((limit - start) / step - 0.5 - 1e-6))
    return first, max(first + 1, last)


def _nearest(
    start: float, extent: float, pixels: int, span: tuple[int, int], limit: int
) -> np.ndarray:
    centres = start + (np.arange(*span) + 0.5) * (extent / pixels)
    nearest: np.ndarray = np.clip(np.floor(centres + 1e-6).astype(np.int64), 0, limit - 1)
    return nearest


def _resize(
    image: Image.Image,
    view: View,
    size: tuple[int, int],
    rows: tuple[int, int],
    columns: tuple[int, int],
    preprocessing: Preprocessing,
    *,
    sharp: bool,
) -> Image.Image:
    down, across = view.height / size[0], view.width / size[1]
    box = (
        max(0.0, view.left + columns[0] * across),
        max(0.0, view.top + rows[0] * down),
        min(float(image.width), view.left + columns[1] * across),
        min(float(image.height), view.top + rows[1] * down),
    )
    shape = (columns[1] - columns[0], rows[1] - rows[0])
    if sharp:
        return image.resize(shape, Image.Resampling.LANCZOS, box=box)
    if preprocessing.resize == "pil":
        return image.resize(shape, Image.Resampling.BILINEAR, box=box)
    if box == (0, 0, image.width, image.height) and shape == image.size:
        return image
    return image.transform(shape, Image.Transform.EXTENT, box, Image.Resampling.BILINEAR)
