"""Regenerates the tables of weights in docs/models/README.md and docs/from-edgenets.md.

python tools/write_model_cards.py

Everything in them is from weights/published.py and models/counts.json.
"""

from __future__ import annotations

from pathlib import Path

from espnetv2.models.catalog import counts, entry
from espnetv2.weights.published import PUBLISHED, Published

ROOT = Path(__file__).resolve().parents[1]
CARDS = ROOT / "docs" / "models" / "README.md"
NAMES = ROOT / "docs" / "from-edgenets.md"
BEGIN, END = "<!-- published.py -->\n", "<!-- end of published.py -->\n"
TASKS = {
    "classification": "Classifiers",
    "segmentation": "Segmenters",
    "detection": "Detectors",
}


def cards() -> str:
    """A table a task: what each file is, costs and scored."""
    lines: list[str] = []
    for task, title in TASKS.items():
        lines += [
            f"## {title}",
            "",
            "| name | parameters | MACs | input | preprocessing | score | file |",
            "|---|---|---|---|---|---|---|",
        ]
        rows = [row for row in PUBLISHED.values() if entry(row.model).task == task]
        lines += [*map(_card, rows), ""]
    return "\n".join(lines)


def _card(row: Published) -> str:
    count = counts()[row.name]
    size = "the picture's" if row.size is None else f"{row.size[0]}x{row.size[1]}"
    score = "not published" if row.score is None else f"{row.score:g}, {row.metric}"
    origin = "ours, in the package" if row.shipped else row.repository
    pinned = "pinned" if row.sha256 else "not pinned yet"
    cells = [
        f"`{row.name}`",
        f"{count['parameters'] / 1e6:.2f} M",
        f"{count['macs'] / 1e6:,.0f} M",
        size,
        f"`{row.convention}`",
        score,
        f"{origin}, {row.licence}, {pinned}",
    ]
    return f"| {' | '.join(cells)} |"


def names() -> str:
    """Official files and what they are called here."""
    lines = ["| repository | file | here |", "|---|---|---|"]
    for row in PUBLISHED.values():
        if not row.shipped:
            lines.append(f"| {row.repository} | `{row.path}` | `{row.name}` |")
    return "\n".join([*lines, ""])


def written(page: str, table: str) -> str:
    """The page with the table between its marks."""
    before, mark, rest = page.partition(BEGIN)
    _, end, last = rest.partition(END)
    if not (mark and end):
        raise ValueError(f"the page lacks {BEGIN!r} or {END!r}")
    return before + BEGIN + table + END + last


if __name__ == "__main__":
    for page, table in ((CARDS, cards()), (NAMES, names())):
        page.write_text(written(page.read_text(encoding="utf-8"), table), encoding="utf-8")
