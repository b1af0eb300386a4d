"""Regenerates the measured table of docs/deploy/README.md from benchmarks/results/engines.json.

python tools/write_engine_table.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "engines.json"
PAGE = ROOT / "docs" / "deploy" / "README.md"
BEGIN, END = "<!-- engines.json -->\n", "<!-- end of engines.json -->\n"
NAMES = {
    "espnetv2_s2_0": "ESPNetv2 s = 2.0",
    "mobilenet_v2": "MobileNetV2",
    "shufflenet_v2_x1_5": "ShuffleNetV2 x1.5",
}


def table(document: dict[str, Any]) -> str:
    """Milliseconds of every engine, the fastest of ESPNetv2 first, and what was measured on."""
    rows = {(row["engine"], row["model"]): row for row in document["rows"]}
    models = list(dict.fromkeys(row["model"] for row in document["rows"]))
    engines = sorted(
        dict.fromkeys(row["engine"] for row in document["rows"]),
        key=lambda engine: rows[engine, models[0]]["ms_median"],
    )
    lines = ["| engine | " + " | ".join(f"{NAMES[model]}, ms" for model in models) + " | MB |"]
    lines.append("|---" * (len(models) + 2) + "|")
    for engine in engines:
        own = [rows[engine, model] for model in models]
        times = [f"{row['ms_median']:.1f} ({row['ms_min']:.1f})" for row in own]
        lines.append(f"| `{engine}` | " + " | ".join(times) + f" | {own[0]['bytes'] / 1e6:.1f} |")
    first, machine = document["rows"][0], document["machine"]
    worst = max(row["difference"] for row in document["rows"])
    size = "x".join(map(str, first["size"]))
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    lines += [
        "",
        f"Medians and, in brackets, minima of one picture of {size} in {first['precision']} on "
        f"{first['threads']} threads, all rows taking turns; no row is further from its train form",
        f"than {worst:.0e}. {machine['processor']}, {machine['cores']} cores, with",
        f"{', '.join(machine['instructions'])}.",
        f"{versions}.",
        "",
    ]
    return "\n".join(lines)


def written(page: str, document: dict[str, Any]) -> str:
    """The page with the table between its marks."""
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    return before + BEGIN + table(document) + END + after


if __name__ == "__main__":
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), result), encoding="utf-8")
