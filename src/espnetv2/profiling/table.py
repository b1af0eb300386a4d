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
    "device",
    "ms",
    "p95",
    "images/s",
    "MB",
    "memory MB",
    "mJ/image",
    "GPU %",
    "SM MHz",
    "SM active %",
    "memory efficiency %",
    "warp efficiency %",
    "metric",
    "difference",
)

_COUNTED = ("gpu_load", "gpu_kernels")


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
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return "\n\n".join([table, *_reasons(rows), about]) + "\n"


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


def plot_batches(rows: Sequence[Row], path: Path) -> bool:
    """Latency of an image against the batch; false unless some network has several batches.

    A line for each network, engine, form, precision and device, with the GPU's clock as found.

    Paper: espnet, the metrics that it adds for edge devices.

    Raises:
        UserError: matplotlib is not installed.
    """
    lines: dict[tuple[str, ...], list[Row]] = {}
    for row in sorted(rows, key=lambda row: row["batch"]):
        names = ("model", "engine", "form", "precision", "device")
        lines.setdefault(tuple(row[name] for name in names), []).append(row)
    several = {kind: line for kind, line in lines.items() if len({r["batch"] for r in line}) > 1}
    if not several:
        return False
    require("matplotlib", extra="plots")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), dpi=130, layout="constrained")
    axes = figure.subplots()
    for kind, line in several.items():
        found = [load["sm_mhz"] for row in line if (load := _counted(row, "gpu_load"))]
        clock = f", {min(found):g} to {max(found):g} MHz" if found else ""
        batches = [row["batch"] for row in line]
        axes.plot(batches, [row["ms_median"] / row["batch"] for row in line], "o-")
        axes.lines[-1].set_label(", ".join(kind) + clock)
    axes.set(xlabel="images a call", ylabel="milliseconds an image, median", ylim=(0, None))
    axes.set_xscale("log", base=2)
    axes.legend(fontsize=7)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
    return True


def _reasons(rows: Sequence[Row]) -> list[str]:
    """Why counters lack, each reason once."""
    told = [row[name] for row in rows for name in _COUNTED if isinstance(row.get(name), str)]
    return [f"GPU counters: {reason}" for reason in dict.fromkeys(told)]


def _counted(row: Row, name: str) -> Mapping[str, Any]:
    values = row.get(name)
    return values if isinstance(values, Mapping) else {}


def _of_gpu(row: Row) -> list[str]:
    """Five cells; empty where nobody asked."""
    if not any(name in row for name in _COUNTED):
        return [""] * 5
    load, kernels = (_counted(row, name) for name in _COUNTED)
    values = (
        load.get("utilisation"),
        load.get("sm_mhz"),
        kernels.get("sm_active"),
        kernels.get("memory_efficiency"),
        kernels.get("warp_execution_efficiency"),
    )
    return ["not available" if one is None else f"{one:.1f}" for one in values]


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
        "" if row.get("device", "cpu") == "cpu" else row["device"],
        f"{row['ms_median']:.2f}",
        f"{row['ms_p95']:.2f}",
        f"{row['images_per_second']:.1f}",
        f"{row['bytes'] / 1e6:.2f}",
        f"{row['peak_memory_bytes'] / 1e6:.0f}",
        energy if isinstance(energy, str) else f"{energy:.2f}",
        *_of_gpu(row),
        "" if name is None else f"{name} {metric[name]:.2f}",
        "" if row.get("difference") is None else f"{row['difference']:.1e}",
    ]
