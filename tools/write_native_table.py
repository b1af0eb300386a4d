"""Regenerates the measured tables of docs/native.md from benchmarks/results/native_*.json.

python tools/write_native_table.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "native.md"
OWN = ("fp32", "bf16", "int8")
BEGIN, END = "<!-- native_*.json -->\n", "<!-- end of native_*.json -->\n"
TASKS = {
    "classifier": "Classifiers, 224 x 224, to logits",
    "segmentation": "Segmenters, 1024 x 512, to the class of every pixel",
    "detection": "Detectors, 300 x 300, to boxes after suppression",
}


def table(task: str, document: dict[str, Any]) -> str:
    """A line for each network: ours, and the fastest of the others at the same precision."""
    rows = document["rows"]
    networks = list(dict.fromkeys(name.partition(" ")[0] for name in rows))
    lines = [
        f"{TASKS[task]}, milliseconds, fastest (median):",
        "",
        "| network | native fp32 | native bf16 | native int8 | floor | best other, fp32 | "
        "best other, bf16 |",
        "|---|---|---|---|---|---|---|",
    ]
    for network in networks:
        own = {name: row for name, row in rows.items() if name.startswith(f"{network} ")}
        cells = [_own(own, f"{network} native {precision}") for precision in OWN]
        floor = own.get(f"{network} native fp32", {}).get("floor_ms")
        cells.append("" if floor is None else f"{floor:.2f}")
        cells += [_best(own, precision) for precision in ("fp32", "bf16")]
        lines.append(f"| `{network}` | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def _time(row: dict[str, Any]) -> str:
    return f"{row['ms_min']:.2f} ({row['ms_median']:.2f})"


def _own(rows: dict[str, Any], name: str) -> str:
    return _time(rows[name]) if name in rows else ""


def _best(rows: dict[str, Any], precision: str) -> str:
    others = [
        (row["ms_min"], name.partition(" ")[2], row)
        for name, row in rows.items()
        if " native " not in name and row["precision"] == precision
    ]
    if not others:
        return ""
    _, name, row = min(others, key=lambda one: one[0])
    return f"{_time(row)}, {name}"


def about(document: dict[str, Any]) -> str:
    """What was measured on."""
    versions = ", ".join(f"{name} {number}" for name, number in document["versions"].items())
    return "\n".join(
        [
            f"{document['processor']}, {document['cores']} virtual cores, "
            f"{document['threads']} threads, {document['date']};",
            f"{', '.join(document['instructions'])};",
            f"{versions}.",
            "",
        ]
    )


def written(page: str) -> str:
    """The page with the tables between its marks."""
    found = {
        task: json.loads((RESULTS / f"native_{task}.json").read_text(encoding="utf-8"))
        for task in TASKS
    }
    tables = [table(task, document) for task, document in found.items()]
    tables.append(about(found["classifier"]))
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + "\n".join(tables) + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
