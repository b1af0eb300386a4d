"""How all figures look: matplotlib's objects, nothing global is touched, no window is opened."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from espnetv2.extras import require

INK, FAINT, GRID = "#1f2733", "#7a8494", "#e3e7ed"
BLUE, ORANGE, GREEN, RED, VIOLET, GREY = (
    "#2463c4",
    "#e07b1f",
    "#2f8f5b",
    "#c2384a",
    "#7a52b3",
    "#9aa3b0",
)
CYCLE = (BLUE, ORANGE, GREEN, VIOLET, RED, GREY)
HEAT = "magma"
_FONT = 9.5
_DPI = 150


def figure(width: float, height: float) -> Any:
    """An empty figure, in inches.

    Raises:
        UserError: matplotlib is not installed.
    """
    made = require("matplotlib.figure", extra="plots").Figure(
        figsize=(width, height), layout="constrained", facecolor="white"
    )
    require("matplotlib.backends.backend_agg", extra="plots").FigureCanvasAgg(made)
    return made


def panel(axis: Any, title: str, *, x: str = "", y: str = "", grid: str = "y") -> None:
    """Titles, labels and a light frame; what is plotted stays on top of the grid."""
    axis.set_title(title, loc="left", fontsize=_FONT + 1, color=INK, fontweight="bold")
    axis.set_xlabel(x, fontsize=_FONT, color=INK)
    axis.set_ylabel(y, fontsize=_FONT, color=INK)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(FAINT)
    axis.tick_params(colors=INK, labelsize=_FONT - 0.5, width=0.6)
    axis.set_axisbelow(True)
    if grid:
        axis.grid(axis=grid, color=GRID, linewidth=0.8)


def picture(axis: Any, values: Any, title: str, *, caption: str, top: float) -> Any:
    """A map as a picture without ticks, from 0 to `top`."""
    shown = axis.imshow(values, cmap=HEAT, vmin=0, vmax=top, interpolation="nearest")
    axis.set_title(title, loc="left", fontsize=_FONT, color=INK)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)
    axis.set_xlabel(caption, fontsize=_FONT - 1, color=FAINT)
    return shown


def bars(
    axis: Any, names: Sequence[str], values: Sequence[float], *, colours: Sequence[str], form: str
) -> None:
    """Horizontal bars, the first on top, each with its value behind it."""
    places = range(len(names))
    drawn = axis.barh(places, values, color=list(colours), height=0.66)
    axis.bar_label(drawn, fmt=form, padding=4, fontsize=_FONT - 0.5, color=INK)
    axis.set_yticks(places, names)
    axis.invert_yaxis()
    axis.margins(x=0.16)
    axis.locator_params(axis="x", nbins=4)
    axis.xaxis.set_major_formatter("{x:,g}")


def legend(axis: Any, **options: Any) -> None:
    """Without a frame."""
    axis.legend(frameon=False, fontsize=_FONT - 0.5, labelcolor=INK, **options)


def mark(axis: Any, text: str, x: float, y: float, **options: Any) -> None:
    """A name beside a point."""
    style = {"fontsize": _FONT - 1, "color": INK, "xytext": (5, 4), "textcoords": "offset points"}
    axis.annotate(text, (x, y), **{**style, **options})


def save(drawn: Any, folder: Path, name: str) -> list[Path]:
    """Write NAME.png and NAME.svg; the same figure gives the same files."""
    paths = [folder / f"{name}.png", folder / f"{name}.svg"]
    matplotlib = require("matplotlib", extra="plots")
    with matplotlib.rc_context({"svg.hashsalt": "espnetv2", "svg.fonttype": "path"}):
        drawn.savefig(paths[0], dpi=_DPI, metadata={"Software": None})
        drawn.savefig(paths[1], metadata={"Date": None, "Creator": None})
    return paths
