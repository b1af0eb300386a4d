"""Draws docs/figures/native_scaling.png from benchmarks/results/native_scaling.json.

python tools/plot_native.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "benchmarks" / "results" / "native_scaling.json"
TARGET = ROOT / "docs" / "figures" / "native_scaling.png"
TITLES = {
    "width": ("width, 224 x 224", "million multiply-adds"),
    "side": ("resolution, s = 1.0", "pixels of a side"),
    "batch": ("batch, s = 1.0", "pictures"),
    "threads": ("threads, s = 1.0", "threads"),
}
COLOURS = {"fp32": "#1b6ca8", "bf16": "#c4562f"}


def across(row: dict[str, Any]) -> float:
    """Where a row stands in its plot."""
    return row["macs"] / 1e6 if row["series"] == "width" else row[row["series"]]


def main() -> None:
    """Draw."""
    found = json.loads(SOURCE.read_text(encoding="utf-8"))
    figure, grid = plt.subplots(2, 2, figsize=(9, 6.4), dpi=130, layout="constrained")
    for axes, (series, (title, label)) in zip(grid.flat, TITLES.items(), strict=True):
        for precision, colour in COLOURS.items():
            rows = [
                r for r in found["rows"] if (r["series"], r["precision"]) == (series, precision)
            ]
            rows.sort(key=across)
            places = [across(row) for row in rows]
            if not rows:
                continue
            axes.plot(
                places, [r["ms_min"] for r in rows], "o-", color=colour, ms=3.5, label=precision
            )
            if precision == "fp32":
                floor = [row["floor_ms"] for row in rows]
                axes.plot(places, floor, "--", color="gray", label="floor: registers alone, fp32")
        axes.set(xlabel=label, ylabel="milliseconds, fastest", ylim=(0, None))
        axes.set_title(title, fontsize=10, loc="left")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    grid[0, 0].legend(fontsize=8)
    TARGET.parent.mkdir(exist_ok=True)
    figure.savefig(TARGET)


if __name__ == "__main__":
    main()
