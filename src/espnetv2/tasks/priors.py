"""The boxes a detector starts from: a grid of shapes on each of its maps."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from espnetv2.errors import UserError

STRIDES = (8, 16, 32, 64)
"""Pixels between neighbours on the first maps; the last two divide the picture evenly."""
ASPECTS = (2, 3)  # on every map: D43
"""Width to height of the oblong shapes, each also upright."""
PER_CELL = 2 + 2 * len(ASPECTS)
"""Priors at one place of a map."""
SMALLEST = 0.1
"""Side of the smallest square, as a share of the picture's shorter side (D43)."""


def priors(image_size: tuple[int, int], *, smallest: float = SMALLEST) -> Tensor:
    """Every prior of a network input, in the order of the network's outputs.

    A cell of map i has a square of side s_i, one of side sqrt(s_i s_{i+1}), and s_i squares
    stretched to the aspects 2, 1/2, 3, 1/3. The sides grow evenly from `smallest` to 105 % of the
    picture; on an oblong picture, of its shorter side, and squares stay square in pixels (D40).
    Maps are read row by row, finest map first.

    Paper: ssd sec. 2.2, sizes and aspects as in the EdgeNets code; a smaller smallest side for
        small things as in ssd sec. 3.4.
    Shape: (height, width) in pixels -> (N, 4) float32: centre x, centre y, width, height, as
        shares of the picture, cut to [0, 1].

    >>> [len(priors((side, side))) for side in (300, 512)]
    [11640, 32742]
    """
    sides = prior_sides(min(image_size), smallest=smallest)
    grids = [
        _grid(image_size, cells, stride=stride, shapes=_shapes(sides[level], sides[level + 1]))
        for level, (cells, stride) in enumerate(zip(map_sizes(image_size), _strides(), strict=True))
    ]
    return torch.from_numpy(np.concatenate(grids).clip(0, 1).astype(np.float32))


def priors_of(
    network: nn.Module, image_size: tuple[int, int], *, device: str | torch.device = "cpu"
) -> Tensor:
    """The priors that a detector was built for; the same tensor each time, so leave it as it is.

    Shape: as `priors`
    """
    smallest = getattr(network, "smallest_prior", SMALLEST)
    return _kept(image_size, smallest, torch.device(device))


@lru_cache(maxsize=16)
def _kept(image_size: tuple[int, int], smallest: float, device: torch.device) -> Tensor:
    return priors(image_size, smallest=smallest).to(device)


def map_sizes(image_size: tuple[int, int]) -> list[tuple[int, int]]:
    """(height, width) of the six maps that the network predicts from, finest first.

    >>> map_sizes((300, 512))
    [(38, 64), (19, 32), (10, 16), (5, 8), (3, 4), (1, 1)]

    Raises:
        UserError: If a side is less than one pixel.
    """
    height, width = image_size
    if min(image_size) < 1:
        raise UserError(f"image size {height} x {width} is empty; give (height, width) in pixels")
    maps = [(math.ceil(height / stride), math.ceil(width / stride)) for stride in STRIDES]
    rows, columns = maps[-1]
    return [*maps, (math.ceil(rows / 2), math.ceil(columns / 2)), (1, 1)]


def prior_sides(side: int, *, smallest: float = SMALLEST) -> list[int]:
    """The seven sides of squares for a picture of `side` pixels: six maps and what follows (D43).

    >>> prior_sides(300)
    [30, 77, 125, 172, 220, 267, 315]

    Raises:
        UserError: If the smallest side is not a share between 0 and 1.
    """
    if not 0 < smallest < 1:
        raise UserError(f"smallest prior {smallest} must be a share of the picture: 0 < share < 1")
    first = math.ceil(round(side * smallest, 6))  # 0.1 is not exact in floating point
    last = math.ceil(side * 21 / 20)  # 1.05
    steps = len(STRIDES) + 2
    return [first + (last - first) * step // steps for step in range(steps + 1)]


def _strides() -> list[int | None]:
    return [*STRIDES, None, None]


def _shapes(side: float, next_side: float) -> list[tuple[float, float]]:
    """Widths and heights in pixels of one cell's priors."""
    middle = math.sqrt(side * next_side)
    shapes = [(side, side), (middle, middle)]
    for aspect in ASPECTS:
        stretch = math.sqrt(aspect)
        shapes += [(side * stretch, side / stretch), (side / stretch, side * stretch)]
    return shapes


def _grid(
    image_size: tuple[int, int],
    cells: tuple[int, int],
    *,
    stride: int | None,
    shapes: list[tuple[float, float]],
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Priors of one map in relative centre form; without a stride, cells share the picture.

    Shape: -> (cells * shapes, 4)
    """
    height, width = image_size
    centre_y, centre_x = (
        # a picture smaller than the stride has one cell, in its middle
        (np.arange(count) + 0.5) * (min(stride, side) / side if stride else 1 / count)
        for count, side in zip(cells, image_size, strict=True)
    )
    grid = np.empty((*cells, len(shapes), 4))
    grid[..., 0] = centre_x[None, :, None]
    grid[..., 1] = centre_y[:, None, None]
    grid[..., 2:] = np.array(shapes) / (width, height)
    return grid.reshape(-1, 4)
