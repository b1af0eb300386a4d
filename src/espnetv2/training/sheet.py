"""A sheet of validation pictures with truth beside prediction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from espnetv2.data.boxes import Boxes
from espnetv2.data.preprocess import Preprocessing
from espnetv2.data.training_sets import IGNORE, TrainingData
from espnetv2.data.voc import bit_palette
from espnetv2.tasks import classify, detect, draw, multilabel, segment
from espnetv2.tasks.detection_training import Answer
from espnetv2.tasks.results import Classification, SegmentationMask
from espnetv2.training.findings import evaluating

PICTURES = 12
"""On a sheet, at most."""

_WIDTH, _WIDE = 320, 480  # of a picture, in pixels; wide where boxes have captions
_GAP = 14
_COLUMNS = {1: 4, 2: 2, 3: 2}  # cells side by side, by how many pictures a cell has
_INK, _FAINT = (34, 38, 46), (120, 128, 140)
_RIGHT, _WRONG = (22, 120, 60), (190, 40, 40)
_UNLABELLED = (0, 0, 0)
_SURE = 0.3  # boxes below are not drawn
_MOST_BOXES = 40  # an untrained network's would hide the picture
_MOST_LABELS = 6

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Cell:
    """One sample on the sheet.

    Attributes:
        pictures: Equally large, side by side.
        lines: Below them, with their colours.
        legend: Names and colours that the pictures need.
    """

    pictures: tuple[Image.Image, ...]
    lines: tuple[tuple[str, Colour], ...]
    legend: dict[str, Colour]


def choose(pictures: int, wrong: np.ndarray | None, *, count: int = PICTURES) -> list[int]:
    """Which samples to show, spread evenly; half of them wrong ones, first, where that is known.

    >>> choose(100, None, count=4)
    [0, 25, 50, 75]
    >>> choose(6, np.array([0, 0, 1, 0, 0, 0], dtype=bool), count=4)
    [2, 0, 1, 4]
    """
    if wrong is None:
        return _evenly(list(range(pictures)), count)
    bad, good = np.flatnonzero(wrong).tolist(), np.flatnonzero(~wrong).tolist()
    share = max(count // 2, count - len(good))
    first = _evenly(bad, share)
    return first + _evenly(good, count - len(first))


def sheet(
    network: nn.Module, data: TrainingData, task: str, chosen: Sequence[int], *, title: str
) -> Image.Image:
    """Draw the chosen validation samples with what the network says of them.

    Args:
        network: On the device to use; its mode is put back.
        data: Whose validation split is shown.
        task: "classification", "multilabel", "segmentation" or "detection".
        chosen: Positions in the split, in the order to show them.
        title: Above all.
    """
    draw_cell = _CELLS[task]
    cells = []
    for position in chosen:
        values, truth = data.val[position]
        with evaluating(network, task) as run:
            outputs = run(values[None])
        cell = draw_cell(picture_of(values, data.preprocessing), outputs, truth, data)
        name = data.val.source[data.val.indices[position]].name
        cells.append(Cell(cell.pictures, (*cell.lines, (name, _FAINT)), cell.legend))
    return _arrange(cells, title)


def picture_of(values: Tensor, preprocessing: Preprocessing) -> Image.Image:
    """The picture that a network's input was made of: the inverse of the convention.

    Shape: float32 (3, H, W) -> picture (W, H)
    """
    mean = torch.tensor(preprocessing.mean)[:, None, None]
    std = torch.tensor(preprocessing.std)[:, None, None]
    pixels = (values.cpu() * preprocessing.divisor * std + mean) * preprocessing.unit
    if preprocessing.order == "bgr":
        pixels = pixels.flip(0)
    levels = pixels.round().clamp(0, 255).byte().permute(1, 2, 0)
    return Image.fromarray(levels.contiguous().numpy())


def _classified(picture: Image.Image, outputs: Tensor, truth: int, data: TrainingData) -> Cell:
    found = classify.decode(outputs, data.classes, top=3)[0]
    true = data.classes[truth]
    right = int(outputs[0].argmax()) == truth  # names may stand twice
    line = true if right else f"{true}, taken for {found.labels[0]}"
    return Cell((found.draw(_enlarged(picture)),), ((line, _RIGHT if right else _WRONG),), {})


def _labelled(picture: Image.Image, outputs: Tensor, truth: Tensor, data: TrainingData) -> Cell:
    found = multilabel.decode(outputs, data.classes)[0].labels
    ranked = multilabel.decode(outputs, data.classes, threshold=-1.0)[0]
    shown = min(max(3, len(found)), _MOST_LABELS)
    bars = Classification(ranked.labels[:shown], ranked.scores[:shown])
    true = [name for name, here in zip(data.classes, truth.tolist(), strict=True) if here > 0.5]
    missed = [name for name in true if name not in found]
    more = [name for name in found if name not in true]
    lines = [(f"true: {', '.join(true) or 'nothing'}", _INK)]
    if missed:
        lines.append((f"missed: {', '.join(missed)}", _WRONG))
    if more:
        lines.append((f"wrongly named: {', '.join(more)}", _WRONG))
    if not missed and not more:
        lines.append(("all named", _RIGHT))
    return Cell((bars.draw(_enlarged(picture)),), tuple(lines), {})


def _segmented(picture: Image.Image, outputs: Tensor, truth: Tensor, data: TrainingData) -> Cell:
    size = (picture.height, picture.width)
    palette = data.palette or bit_palette(len(data.classes))
    found = segment.decode(outputs, [size], data.classes, palette)[0]
    labels = truth.numpy()
    names, colours = (*data.classes, "unlabelled"), (*palette, _UNLABELLED)
    void = len(data.classes)
    drawn = SegmentationMask(
        np.where(labels == IGNORE, void, labels).astype(np.uint8), names, colours
    )
    large = _enlarged(picture)
    counted = labels != IGNORE
    share = float((found.mask[counted] == labels[counted]).mean()) if counted.any() else 0.0
    shown = {**drawn.shares, **found.shares}
    return Cell(
        (large, drawn.draw(large, legend=False), found.draw(large, legend=False)),
        ((f"picture, truth, prediction: {share:.0%} of the labelled pixels right", _INK),),
        {name: colour for name, colour in zip(names, colours, strict=True) if name in shown},
    )


def _detected(picture: Image.Image, outputs: Answer, truth: Boxes, data: TrainingData) -> Cell:
    height, width = truth.size  # not the input's, which is stretched
    large = _enlarged(picture, width=_WIDE, aspect=height / width)
    size = (large.height, large.width)
    found = detect.decode(
        outputs.raw, outputs.priors, [size], data.classes, max_detections=_MOST_BOXES
    )[0]
    kept = int((found.scores >= _SURE).sum())
    more = " or more" if kept == _MOST_BOXES else ""
    shown = {*(truth.labels - 1).tolist(), *found.labels[:kept].tolist()}
    return Cell(
        (_with_truth(large, truth), found.draw(large, threshold=_SURE)),
        ((f"true boxes: {len(truth.boxes)}; predicted from {_SURE:.0%}: {kept}{more}", _INK),),
        {data.classes[label]: draw.class_colour(label) for label in sorted(shown)},
    )


def _with_truth(picture: Image.Image, truth: Boxes) -> Image.Image:
    """True boxes, which have no score to be captioned with; thin where they do not count."""
    drawn = picture.copy()
    layer = ImageDraw.Draw(drawn)
    sides = truth.boxes * torch.tensor([picture.width, picture.height] * 2)
    spared = (truth.difficult | truth.crowd).tolist()
    for box, label, thin in zip(sides.tolist(), truth.labels.tolist(), spared, strict=True):
        layer.rectangle(box, outline=draw.class_colour(label - 1), width=1 if thin else 2)
    return drawn


_CELLS: dict[str, Callable[[Image.Image, Any, Any, TrainingData], Cell]] = {
    "classification": _classified,
    "multilabel": _labelled,
    "segmentation": _segmented,
    "detection": _detected,
}


def _evenly(items: list[int], count: int) -> list[int]:
    if len(items) <= count:
        return items
    return [items[position * len(items) // count] for position in range(count)]


def _enlarged(
    picture: Image.Image, *, width: int = _WIDTH, aspect: float | None = None
) -> Image.Image:
    height = width * (picture.height / picture.width if aspect is None else aspect)
    return picture.resize((width, max(1, round(height))), Image.Resampling.BICUBIC)


def _arrange(cells: Sequence[Cell], title: str) -> Image.Image:
    """Cells in a grid, rows as high as their highest picture; a legend at the foot."""
    panels, step = len(cells[0].pictures), cells[0].pictures[0].width + 4
    columns = min(_COLUMNS[panels], len(cells))
    cell_width = panels * step - 4
    width = columns * (cell_width + 2 * _GAP)
    large, small = partial(ImageFont.load_default, 20), partial(ImageFont.load_default, 14)
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    legend = {name: colour for cell in cells for name, colour in cell.legend.items()}
    places, foot = _legend_places(legend, small(), width)
    heights = [_row_height(row) for row in rows]
    canvas = Image.new("RGB", (width, 48 + sum(heights) + foot), "white")
    layer = ImageDraw.Draw(canvas)
    layer.text((_GAP, 24), _fitting(title, large(), width - 2 * _GAP), _INK, large(), anchor="lm")
    top = 48
    for row, height in zip(rows, heights, strict=True):
        for column, cell in enumerate(row):
            left = column * (cell_width + 2 * _GAP) + _GAP
            for number, picture in enumerate(cell.pictures):
                canvas.paste(picture, (left + number * step, top))
            below = top + cell.pictures[0].height + 4
            for number, (line, colour) in enumerate(cell.lines):
                text = _fitting(line, small(), cell_width)
                layer.text((left, below + 20 * number), text, colour, small())
        top += height
    for (name, colour), (x, y) in zip(legend.items(), places, strict=True):
        layer.rectangle((x, top + y, x + 14, top + y + 14), colour, outline=_FAINT)
        layer.text((x + 20, top + y + 7), name, _INK, small(), anchor="lm")
    return canvas


def _row_height(row: Sequence[Cell]) -> int:
    return max(cell.pictures[0].height + 20 * len(cell.lines) for cell in row) + _GAP + 4


def _legend_places(
    legend: dict[str, Colour], font: Any, width: int
) -> tuple[list[tuple[int, int]], int]:
    """Where each swatch goes, left to right in as many lines as it takes; and the height."""
    places, x, y = [], _GAP, 4
    for name in legend:
        room = 20 + int(font.getlength(name)) + 22
        if x + room > width and x > _GAP:
            x, y = _GAP, y + 24
        places.append((x, y))
        x += room
    return places, y + 32 if legend else 0


def _fitting(text: str, font: Any, room: int) -> str:
    if font.getlength(text) <= room:
        return text
    while len(text) > 1 and font.getlength(text + "...") > room:
        text = text[:-1]
    return text + "..."
