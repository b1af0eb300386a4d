"""Is the artefact the network? Compared on pictures, output by output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from espnetv2.data.pictures import open_picture
from espnetv2.errors import UserError

_NEAR = 0.02
"""Of boxes and scores, both from 0 to 1, that are taken for the same."""
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


@dataclass(frozen=True)
class Likeness:
    """How far two runs of one network agree.

    Attributes:
        difference: Largest absolute difference of any output, relative to that output's largest
            absolute value over all pictures.
        agreement: Share of equal arg-max decisions: of pictures, pixels or priors.
        inputs: That were compared.
    """

    difference: float
    agreement: float
    inputs: int


def compare(
    reference: Callable[..., Sequence[np.ndarray]],
    candidate: Callable[..., Sequence[np.ndarray]],
    inputs: Sequence[tuple[np.ndarray, ...]],
    *,
    class_axis: int | None = 1,
) -> Likeness:
    """Run both on every input; both give the same outputs in the same order.

    Args:
        inputs: Arguments of each call.
        class_axis: Of the first output, over which decisions are made; None if the last output
            holds decisions, which are whole numbers.
    """
    largest: list[float] = []
    apart: list[float] = []
    equal = total = 0
    for one in inputs:
        pairs = list(zip(reference(*one), candidate(*one), strict=True))
        largest = largest or [0.0] * len(pairs)
        apart = apart or [0.0] * len(pairs)
        for place, (truth, found) in enumerate(pairs):
            if truth.size and np.issubdtype(truth.dtype, np.floating):
                largest[place] = max(largest[place], float(np.abs(truth).max()))
                gap = float(np.abs(truth.astype(np.float64) - found).max())
                apart[place] = float("inf") if gap != gap else max(apart[place], gap)
        decided = pairs[-1]
        if class_axis is not None:
            decided = tuple(np.argmax(outputs, axis=class_axis) for outputs in pairs[0])
        equal += int((decided[0] == decided[1]).sum())
        total += decided[0].size
    gaps = [gap / (top or 1.0) for gap, top in zip(apart, largest, strict=True)]
    return Likeness(max(gaps, default=0.0), equal / max(total, 1), len(inputs))


def compare_boxes(
    reference: Callable[..., Sequence[np.ndarray]],
    candidate: Callable[..., Sequence[np.ndarray]],
    inputs: Sequence[tuple[np.ndarray, ...]],
) -> Likeness:
    """The same for decoded detections, box by box instead of row by row.

    Suppression turns the last digit of an overlap into a box more or less, and every row behind it
    moves up. So each box of the reference looks for its partner: of its label, and so near that no
    other box could be meant. `agreement` is the share of boxes with a partner, `difference` that of
    partners' scores and corners; without partners for half of the boxes it is infinite.
    """
    apart = top = 0.0
    found = total = 0
    for one in inputs:
        sides = (reference(*one), candidate(*one))
        for truth, other in zip(*(zip(*side, strict=True) for side in sides), strict=True):
            real = truth[1] > 0
            gaps = np.abs(truth[0][real][:, None] - other[0][None]).max(-1)  # (boxes, K)
            gaps = np.maximum(gaps, np.abs(truth[1][real][:, None] - other[1][None]))
            gaps[(truth[2][real][:, None] != other[2][None]) | ~(gaps <= _NEAR)] = np.inf
            nearest = gaps.min(1) if gaps.size else np.zeros(0)
            paired = nearest[np.isfinite(nearest)]
            found, total = found + len(paired), total + len(nearest)
            apart = max(apart, float(paired.max(initial=0.0)))
            top = max(top, float(truth[1].max(initial=0.0)))
    share = found / total if total else 1.0
    return Likeness(apart / (top or 1.0) if share >= 0.5 else float("inf"), share, len(inputs))


def pictures_in(folder: Path, *, limit: int) -> list[Image.Image]:
    """The first pictures of a folder, at any depth, by name.

    Raises:
        UserError: It is no folder, or holds no picture.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give one with pictures like the device's")
    paths = sorted(
        p
        for p in folder.rglob("*")
        if p.suffix.lower() in SUFFIXES and p.is_file() and not p.name.startswith(".")
    )
    if not paths:
        raise UserError(f"{folder} holds no picture ({', '.join(sorted(SUFFIXES))})")
    step = max(1, len(paths) // limit)  # evenly: neighbours are alike
    return [open_picture(path) for path in paths[::step][:limit]]


def drawn_pictures(count: int, size: tuple[int, int]) -> list[Image.Image]:
    """Pictures for where none are given: shaded shapes, the same ones every time.

    Args:
        size: (height, width).
    """
    height, width = size
    drawn = []
    for seed in range(count):
        chance = np.random.default_rng(seed)
        rough = chance.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        picture = Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC)
        layer = ImageDraw.Draw(picture)
        for _ in range(12):
            x, y = chance.integers(0, (width, height))
            across, down = chance.integers(4, (max(width // 3, 5), max(height // 3, 5)))
            colour = tuple(int(value) for value in chance.integers(0, 256, 3))
            shape = layer.ellipse if chance.random() < 0.5 else layer.rectangle
            shape((x, y, x + across, y + down), fill=colour)
        noise = chance.normal(0, 6, (height, width, 3))
        soft = np.asarray(picture.filter(ImageFilter.GaussianBlur(1)), dtype=np.float64)
        drawn.append(Image.fromarray((soft + noise).clip(0, 255).astype(np.uint8)))
    return drawn
