"""Regenerates the README's table of speed and accuracy.

python tools/write_readme_table.py

Scores are from weights/published.py, counts from models/counts.json, times from
benchmarks/results/native_*.json.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from espnetv2.models.catalog import counts
from espnetv2.weights.published import PUBLISHED

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "README.md"
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- speed and accuracy -->\n", "<!-- end of speed and accuracy -->\n"
ROWS = (
    ("classifier", "espnetv2_s0_5.edgenets_in1k"),
    ("classifier", "espnetv2_s1_0.edgenets_in1k"),
    ("classifier", "espnetv2_s2_0.edgenets_in1k"),
    ("segmentation", "espnetv2_seg_s0_5.edgenets_city_1024"),
    ("segmentation", "espnetv2_seg_s1_0.edgenets_city_1024"),
    ("segmentation", "espnetv2_seg_s2_0.edgenets_city_1024"),
    ("detection", "espnetv2_ssd300_s2_0.edgenets_voc"),
)


def row(task: str, name: str) -> str:
    """One network: counts, published score, our time, and the fastest other engine's."""
    published, rows = PUBLISHED[name], measured(task)["rows"]
    height, width = published.size or (0, 0)
    own = rows[f"{published.model} native fp32"]
    others = [
        (one["ms_min"], one["ms_median"], key.split()[1])
        for key, one in rows.items()
        if key.startswith(f"{published.model} ")
        and " native " not in key
        and one["precision"] == "fp32"
    ]
    other = "not measured"
    if others:
        fastest, median, engine = min(others)
        other = f"{fastest:.1f} ({median:.1f}), {engine}"
    cells = [
        f"`{name}`",
        f"{width}x{height}",
        f"{counts()[name]['parameters'] / 1e6:.2f} M",
        f"{counts()[name]['macs'] / 1e6:,.0f} M",
        f"{published.score:.1f}, {published.metric}",
        f"**{own['ms_min']:.1f}** ({own['ms_median']:.1f})",
        other,
    ]
    return f"| {' | '.join(cells)} |"


def measured(task: str) -> dict[str, Any]:
    """The results of a task."""
    content: dict[str, Any] = json.loads(
        (RESULTS / f"native_{task}.json").read_text(encoding="utf-8")
    )
    return content


def table() -> str:
    """The table, and what it was measured on."""
    about = measured("classifier")
    return "\n".join(
        [
            "| weights | input | parameters | MACs | published score | native engine, ms "
            "| fastest other engine, ms |",
            "|---|---|---|---|---|---|---|",
            *(row(task, name) for task, name in ROWS),
            "",
            f"Fastest (median) of one picture in fp32 on {about['threads']} threads of an "
            f"{about['processor']}, {about['date']};",
            "all engines take turns in one process, on random weights. Other machines: "
            "`espnetv2 benchmark`.",
            "",
        ]
    )


def written(page: str) -> str:
    """The page with the table between its marks."""
    before, mark, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (mark and end):
        raise ValueError(f"the page lacks {BEGIN!r} or {END!r}")
    return before + BEGIN + table() + END + after


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
