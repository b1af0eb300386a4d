"""A benchmark's rows as Markdown, and as a plot of latency against metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from espnetv2.extras import require

Row = Mapping[str, Any]

_COLUMNS = (
    "model",
    "engine",
    "form",
    "precision",
    "input",
    "threads",
    "ms",
    "p95",
    "images/s",
    "MB",
    "memory MB",
    "mJ/image",
    "metric",
    "difference",
)


def markdown(document: Mapping[str, Any]) -> str:
    """The rows of `profiling.benchmark.benchmark` as a table, fastest first, and the machine."""
    machine, rows = document["machine"], sorted(document["rows"], key=lambda r: r["ms_median"])
    cells = [_cells(row) for row in rows]
    shown = [i for i, _ in enumerate(_COLUMNS) if any(line[i] for line in cells)]
    lines = [
        [_COLUMNS[i] for i in shown],
        ["---"] * len(shown),
        *([line[i] for i in shown] for line in cells),
    ]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    about = (
        f"{machine['processor']}, {machine['cores']} cores; {versions}. Milliseconds are medians, "
        "all rows taking turns."
    )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + f"\n\n{about}\n"


def plot(rows: Sequence[Row], path: Path) -> bool:
    """Latency against the first metric, a point a row; false if no row has a metric.

    Raises:
        UserError: matplotlib is not installed.
    """
    scored = [row for row in rows if row.get("metric")]
    if not scored:
        return False
    require("matplotlib", extra="plots")
    from matplotlib.figure import Figure

    name = next(iter(scored[0]["metric"]))
    figure = Figure(figsize=(7, 4.5), dpi=130, layout="constrained")
    axes = figure.subplots()
    for row in scored:
        ms, score = row["ms_median"], row["metric"][name]
        axes.plot(ms, score, "o", color="#1b6ca8")
        label = f"{row['model']}\n{row['engine']}, {row['precision']}"
        axes.annotate(label, (ms, score), xytext=(5, 4), textcoords="offset points", fontsize=7)
    axes.set(xlabel="milliseconds a call, median", ylabel=f"{name}, %", xlim=(0, None))
    axes.margins(0.2)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
    return True


def _cells(row: Row) -> list[str]:
    size = "x".join(map(str, row["size"]))
    energy = row.get("millijoules_per_image", "")
    metric = row.get("metric") or {}
    name = next(iter(metric), None)
    return [
        str(row["model"]),
        row["engine"],
        row["form"],
        row["precision"],
        f"{row['batch']}x{size}",
        str(row["threads"]),
        f"{row['ms_median']:.2f}",
        f"{row['ms_p95']:.2f}",
        f"{row['images_per_second']:.1f}",
        f"{row['bytes'] / 1e6:.2f}",
        f"{row['peak_memory_bytes'] / 1e6:.0f}",
        energy if isinstance(energy, str) else f"{energy:.2f}",
        "" if name is None else f"{name} {metric[name]:.2f}",
        "" if row.get("difference") is None else f"{row['difference']:.1e}",
    ]
