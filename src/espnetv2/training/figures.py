"""Charts of a run, by matplotlib's objects: nothing global is touched, no window is opened."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from espnetv2.extras import require

MOST_CLASSES = 30
"""Of a confusion matrix; of more classes the most confused are shown."""
MOST_BARS = 40
"""Of more classes the best and the worst are shown."""

_DPI = 120
_INK, _FAINT, _GRID = "#22262e", "#8a919e", "#e4e7ec"
_BLUE, _ORANGE = "#2463c4", "#e8862a"
_STEEP = 30  # a chart whose values differ by more is logarithmic


@dataclass(frozen=True)
class Curve:
    """One chart over the epochs.

    Attributes:
        title: Above it.
        columns: Of the history, by the name of the line; the last line is blue.
        best: Whether to point out the last line's best value, and which that is.
        steep: Whether values of different orders of magnitude make it logarithmic.
        from_zero: Whether the scale begins at 0.
    """

    title: str
    columns: Mapping[str, str]
    best: Literal["max", "min"] | None = None
    steep: bool = False
    from_zero: bool = False


def require_plots() -> None:
    """Say early that matplotlib is missing.

    Raises:
        UserError: The extra `plots` is not installed.
    """
    require("matplotlib.figure", extra="plots")


def curves(rows: Sequence[Mapping[str, Any]], charts: Sequence[Curve], *, title: str) -> Any:
    """Charts side by side; a row without a value leaves a gap of its line."""
    figure = _figure(4.6 * len(charts), 3.5)
    for axis, chart in zip(figure.subplots(1, len(charts), squeeze=False)[0], charts, strict=True):
        _plain(axis, chart.title)
        axis.grid(color=_GRID)
        lines = {name: _points(rows, column) for name, column in chart.columns.items()}
        colours = [_ORANGE, _BLUE][-len(lines) :]
        for (name, (epochs, values)), colour in zip(lines.items(), colours, strict=True):
            marker = "o" if len(epochs) <= MOST_BARS else None
            axis.plot(epochs, values, color=colour, label=name, marker=marker, ms=3.5, lw=1.8)
        if len(lines) > 1:
            axis.legend(frameon=False, labelcolor=_INK)
        _point_out_best(axis, chart, *list(lines.values())[-1])
        values = [value for _, line in lines.values() for value in line]
        if chart.steep and values and min(values) > 0 and max(values) > _STEEP * min(values):
            axis.set_yscale("log")
        if chart.from_zero:
            axis.set_ylim(bottom=0)
        axis.set_xlabel("epoch", color=_INK)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.margins(x=0.04)
    figure.suptitle(_escaped(title), color=_INK)
    return figure


def confusion(counts: np.ndarray, classes: Sequence[str], *, unit: str) -> Any:
    """Which share of each true class was taken for which class, in per cent.

    Shape: counts (K, K), true class by row
    """
    shown = most_confused(counts, MOST_CLASSES)
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    shares = shares[np.ix_(shown, shown)]
    side = 0.44 * len(shown)
    names = [_name(classes[index]) for index in shown]
    longest = 0.075 * max(len(name) for name in names)
    figure = _figure(max(4.6, side + longest + 1.6), max(4.2, side + longest + 1.2))
    axis = figure.subplots()
    picture = axis.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    for row, column in np.argwhere(shares >= 0.5):
        value = shares[row, column]
        colour = "white" if value > 55 else _INK
        axis.text(column, row, f"{value:.0f}", ha="center", va="center", color=colour, fontsize=8)
    title = f"share of a true class's {unit}, %"
    if len(shown) < len(classes):
        title = f"{title}: the {len(shown)} most confused of {len(classes)} classes"
    _plain(axis, title)
    ticks = range(len(shown))
    turn = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if len(shown) > 2 else {}
    axis.set_xticks(ticks, names, **turn)
    axis.set_yticks(ticks, names)
    axis.set_xlabel("predicted", color=_INK)
    axis.set_ylabel("true", color=_INK)
    axis.spines[:].set_visible(False)
    bar = figure.colorbar(picture, ax=axis, fraction=0.046, pad=0.03)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=_INK, labelsize=8)
    return figure


def class_bars(
    values: np.ndarray, counts: np.ndarray, classes: Sequence[str], *, measure: str, unit: str
) -> Any:
    """A bar a class, best first, with how often the class occurs; absent classes are left out.

    Shape: values (K,) from 0 to 1, nan for absent; counts (K,)
    """
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(-values[known], kind="stable")]
    half = MOST_BARS // 2
    shown = order if len(order) <= MOST_BARS else np.concatenate([order[:half], order[-half:]])
    figure = _figure(7.2, 0.27 * max(2, len(shown)) + 1.4)
    axis = figure.subplots()
    beside = partial(
        axis.text, transform=axis.get_yaxis_transform(), color=_FAINT, fontsize=8
    )  # across in shares of the chart
    heights, places = 100 * values[shown], np.arange(len(shown))
    axis.barh(places, heights, color=_BLUE, height=0.72)
    for place, height, index in zip(places, heights, shown, strict=True):
        axis.text(height + 0.8, place, f"{height:.1f}", va="center", color=_INK, fontsize=9)
        beside(1.01, place, f"{int(counts[index]):,}".replace(",", " "), va="center")
    beside(1.01, -1, unit, va="center")
    title = f"{measure} of each class, %"
    if len(shown) < len(order):
        title = f"{title}: the {half} best and {half} worst of {len(order)}"
    _plain(axis, title)
    if len(order):
        average = 100 * float(values[order].mean())
        axis.axvline(average, color=_ORANGE, lw=1.4, ls=(0, (4, 3)))
        axis.set_xlabel(f"mean {average:.1f} (dashed)", color=_INK)
    axis.set_yticks(places, [_name(classes[index]) for index in shown])
    axis.set_ylim(max(1, len(shown)) - 0.4, -0.6)
    axis.set_xlim(0, 112)
    axis.set_xticks(range(0, 101, 20))
    axis.tick_params(axis="y", length=0)
    return figure


def most_confused(counts: np.ndarray, limit: int) -> np.ndarray:
    """Indices of the classes with the largest share of errors as truth and as answer, in order.

    Shape: (K, K) -> (min(K, limit),)
    """
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    np.fill_diagonal(shares, 0)
    errors = shares.sum(0) + shares.sum(1)
    return np.sort(np.argsort(-errors, kind="stable")[:limit])


def save(figure: Any, path: Path) -> None:
    """Write a PNG."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a box stands for it
        figure.savefig(path, dpi=_DPI, format="png", bbox_inches="tight", pad_inches=0.12)


def _figure(width: float, height: float) -> Any:
    figure = require("matplotlib.figure", extra="plots").Figure(
        figsize=(width, height), layout="constrained"
    )
    require("matplotlib.backends.backend_agg", extra="plots").FigureCanvasAgg(figure)
    return figure


def _plain(axis: Any, title: str) -> None:
    axis.set_title(_escaped(title), loc="left", fontsize=11, color=_INK)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(_FAINT)
    axis.set_axisbelow(True)
    axis.tick_params(colors=_INK, labelsize=9)


def _points(rows: Sequence[Mapping[str, Any]], column: str) -> tuple[list[int], list[float]]:
    known = [row for row in rows if math.isfinite(float(row.get(column, math.nan)))]
    return [int(row["epoch"]) for row in known], [float(row[column]) for row in known]


def _point_out_best(axis: Any, chart: Curve, epochs: list[int], values: list[float]) -> None:
    if chart.best is None or not values:
        return
    best = (max if chart.best == "max" else min)(values)
    epoch = epochs[values.index(best)]
    axis.plot([epoch], [best], "o", ms=9, mfc="none", mec=_BLUE, mew=1.6)
    axis.set_title(f"best {best:.2f}, epoch {epoch}", loc="right", fontsize=9, color=_BLUE)


def _name(text: str) -> str:
    """A class's name, short enough, with no mathematics in it."""
    return _escaped(text if len(text) <= 32 else text[:30] + "…")


def _escaped(text: str) -> str:
    return text.replace("$", r"\$")
