"""Segmenting a picture that is too large for one pass: overlapping tiles, blended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from espnetv2.data.preprocess import Preprocessing
from espnetv2.errors import UserError
from espnetv2.layers.conv import resize

GRID = 32
"""Tiles start at multiples of this, so that strided layers fall on the same pixels as untiled."""


@dataclass(frozen=True)
class Span:
    """One tile along one axis: it contributes [start, stop) and looks at [seen, stop)."""

    seen: int
    start: int
    stop: int


def segment_tiled(
    model: Callable[[Tensor], Tensor],
    image: Image.Image,
    preprocessing: Preprocessing,
    *,
    tile: int,
    overlap: int,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """The class of every pixel, seen through tiles of `tile` x `tile` pixels.

    Tiles are taken at the picture's own resolution and only normalised: a size that the
    preprocessing fixes is set aside. Where tiles overlap their logits are averaged with weights
    that fall to zero before a tile's border: the outer quarter of the overlap, which zero
    padding spoils, does not count. So the mask equals the untiled one wherever the nearest
    border inside the picture is farther than the network sees, and everywhere once a quarter of
    the overlap is. Networks that pool globally see the tile for the picture.

    Memory: the picture, the mask and `classes * overlap * width` floats of one seam; not the
    logits of the picture.

    Shape: picture (W, H) -> uint8 (H, W)

    Args:
        model: (1, 3, h, w) -> (1, classes, h, w), or smaller maps, which are enlarged.
        image: RGB.
        preprocessing: As the weights want it.
        tile: Pixels a side, rounded up to a multiple of 32.
        overlap: Pixels that neighbours share, rounded up likewise, at most half a tile.
        device: Where the model is.

    Raises:
        UserError: `tile` or `overlap` out of range.
    """
    tile, overlap = rounded(tile, overlap)
    width, height = image.size
    columns, rows = spans(width, tile, overlap), spans(height, tile, overlap)
    mask = np.empty((height, width), np.uint8)
    seam: Tensor | None = None  # bottom rows of the tiles above, weighted: (C, overlap, W)
    native = preprocessing.resized(None)
    for row in rows:
        last = row is rows[-1]
        side: Tensor | None = None  # right columns of the tile before, weighted
        for column in columns:
            window = (column.seen, row.seen, column.stop, row.stop)
            values = _logits(model, native(image.crop(window)).to(device))
            values = values[:, row.start - row.seen :, column.start - column.seen :]
            values = values * _profile(column, width, overlap).to(values)
            ready, side = _join(values, side, overlap, dim=2, last=column is columns[-1])
            ready = ready * _profile(row, height, overlap).to(ready)[:, None]
            place = slice(column.start, column.start + ready.shape[2])
            above = None if seam is None or row is rows[0] else seam[:, :, place].to(ready)
            ready, below = _join(ready, above, overlap, dim=1, last=last)
            if below is not None:
                if seam is None:
                    seam = torch.empty(below.shape[0], overlap, width)
                seam[:, :, place] = below
            labels = ready.max(0).indices.to("cpu", torch.uint8).numpy()
            mask[row.start : row.start + labels.shape[0], place] = labels
    return mask


def labels_in_bands(logits: Tensor, size: tuple[int, int], *, rows: int = 64) -> np.ndarray:
    """Enlarge logits bilinearly and take the best class, a band of rows at a time.

    Equals enlarging all at once (`tasks.segment.label_map`) up to float rounding, without the
    memory: a picture of 300 million pixels has 25 GB of logits for 21 classes.

    Shape: (classes, h, w) -> uint8 (H, W)
    """
    height, width = size
    scale = logits.shape[1] / height
    mask = np.empty(size, np.uint8)
    for top in range(0, height, rows):
        row = torch.arange(top, min(top + rows, height), device=logits.device, dtype=torch.float64)
        place = ((row + 0.5) * scale - 0.5).clamp(0, logits.shape[1] - 1)
        above = place.long()
        below = (above + 1).clamp(max=logits.shape[1] - 1)
        weight = (place - above).to(logits.dtype)[:, None]
        band = logits[:, above] * (1 - weight) + logits[:, below] * weight  # (C, rows, w)
        wide = F.interpolate(band[None], (len(row), width), mode="bilinear")[0]
        mask[top : top + len(row)] = wide.max(0).indices.to("cpu", torch.uint8).numpy()
    return mask


def rounded(tile: int, overlap: int) -> tuple[int, int]:
    """Tile and overlap as multiples of 32.

    >>> rounded(1000, 100)
    (1024, 128)
    """
    tile, overlap = (-(-value // GRID) * GRID for value in (tile, overlap))
    if tile < GRID:
        raise UserError(f"tile {tile} is too small; give at least {GRID} pixels")
    if not 0 <= 2 * overlap <= tile:
        raise UserError(
            f"overlap {overlap} does not suit tiles of {tile}; give 0 to {tile // 2} pixels"
        )
    return tile, overlap


def spans(length: int, tile: int, overlap: int) -> list[Span]:
    """The tiles that cover an axis; the last looks back so far that it sees a whole tile.

    >>> [(s.seen, s.start, s.stop) for s in spans(250, 128, 32)]
    [(0, 0, 128), (96, 96, 224), (96, 192, 250)]
    """
    step = tile - overlap
    found = [Span(0, 0, min(tile, length))]
    while found[-1].stop < length:
        start = found[-1].start + step
        if start + tile < length:
            found.append(Span(start, start, start + tile))
        else:
            found.append(Span(max(0, length - tile) // GRID * GRID, start, length))
    return found


def _join(
    values: Tensor, before: Tensor | None, overlap: int, *, dim: int, last: bool
) -> tuple[Tensor, Tensor | None]:
    """Add what the tile before left for the shared part; split off what the next one needs."""
    if before is not None and overlap:
        values.narrow(dim, 0, overlap).add_(before)
    if last or not overlap:
        return values, None
    done = values.shape[dim] - overlap
    return values.narrow(dim, 0, done), values.narrow(dim, done, overlap).clone()


def _profile(span: Span, length: int, overlap: int) -> Tensor:
    """Weights along an axis; those of two neighbours sum to one over the part they share."""
    weights = torch.ones(span.stop - span.start)
    if overlap:
        ramp = ((torch.arange(overlap) + 0.5 - overlap / 4) / (overlap / 2)).clamp(0, 1)
        if span.start > 0:
            weights[:overlap] *= ramp
        if span.stop < length:
            weights[-overlap:] *= ramp.flip(0)
    return weights


def _logits(model: Callable[[Tensor], Tensor], window: Tensor) -> Tensor:
    """(3, h, w) -> (classes, h, w); a sliver is widened to what networks accept and cut back."""
    height, width = window.shape[-2:]
    padding = (0, max(0, GRID - width), 0, max(0, GRID - height))
    batch = F.pad(window[None], padding, mode="replicate")
    logits = model(batch).float()
    return resize(logits, (batch.shape[-2], batch.shape[-1]))[0, :, :height, :width]
