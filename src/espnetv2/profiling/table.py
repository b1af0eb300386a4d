"""A benchmark's rows as Markdown, and as plots: latency against metric, energy against size."""

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


def plot_energy(rows: Sequence[Row], path: Path) -> bool:
    """Power under load and energy per image against multiply-adds; false if nothing was counted.

    A colour for each engine, form and precision; the broken line is the idle machine.

    Paper: espnetv2 sec. 4.1, Fig. 5.

    Raises:
        UserError: matplotlib is not installed.
    """
    counted = sorted((row for row in rows if row.get("energy")), key=lambda row: row["macs"])
    if not counted:
        return False
    require("matplotlib", extra="plots")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.5), dpi=130, layout="constrained")
    power, energy = figure.subplots(1, 2)
    kinds = dict.fromkeys((row["engine"], row["form"], row["precision"]) for row in counted)
    for kind in kinds:
        line = [r for r in counted if (r["engine"], r["form"], r["precision"]) == kind]
        macs = [row["macs"] / 1e6 for row in line]
        watts = [row["energy"]["load_watts"] for row in line]
        joules = [row["millijoules_per_image"] for row in line]
        for axes, values in ((power, watts), (energy, joules)):
            axes.plot(macs, values, "o", label=", ".join(kind))
            for row, across, up in zip(line, macs, values, strict=True):
                axes.annotate(
                    row["model"], (across, up), (5, 4), textcoords="offset points", fontsize=7
                )
    idle = [row["energy"]["idle_watts"] for row in counted]
    power.axhline(sum(idle) / len(idle), ls="--", color="gray", label="idle")
    covers, method = counted[0]["energy"]["covers"], counted[0]["energy"]["method"]
    power.set(ylabel=f"watts under load ({covers}, {method})")
    energy.set(ylabel="millijoules an image, idle subtracted")
    power.legend(fontsize=7)
    for axes in (power, energy):
        axes.set(xlabel="million multiply-adds", xlim=(0, None), ylim=(0, None))
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
