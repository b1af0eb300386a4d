"""Draws docs/figures/camvid_finetune.png: fine-tuning against training from scratch.

    python tools/plot_finetune.py

Reads results/camvid_finetune_{scratch,cityscapes}.csv, the histories of two runs that differ in
`--weights` alone.
"""

from __future__ import annotations

import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).resolve().parents[1]
RUNS = {
    "cityscapes": ("from Cityscapes weights", "#1b6ca8"),
    "scratch": ("from scratch", "#c4562f"),
}


def main() -> None:
    figure, axes = plt.subplots(figsize=(6.4, 3.8), dpi=130, layout="constrained")
    for name, (label, colour) in RUNS.items():
        path = ROOT / "results" / f"camvid_finetune_{name}.csv"
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        epochs = [int(row["epoch"]) + 1 for row in rows]
        scores = [float(row["val_miou"]) for row in rows]
        axes.plot(epochs, scores, color=colour, marker="o", markersize=3.5)
        axes.annotate(
            f"{label}\n{max(scores):.1f}",
            (epochs[-1], scores[-1]),
            xytext=(6, -8),
            textcoords="offset points",
            color=colour,
            fontsize=9,
        )
    axes.set(xlabel="epoch", ylabel="val mIoU, %, void ignored", xlim=(0.5, 20.5), ylim=(0, None))
    axes.set_xticks(range(1, 16, 2))
    axes.set_title("CamVid, ESPNetv2 s = 0.5, 240x320, same recipe", fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
    target = ROOT / "docs" / "figures" / "camvid_finetune.png"
    target.parent.mkdir(exist_ok=True)
    figure.savefig(target)


if __name__ == "__main__":
    main()
