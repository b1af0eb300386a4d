"""A reproduced table or figure: rows, what a figure is drawn from, and both as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from espnetv2.reproduce.row import Row

_HEADER = ("what", "paper", "ours", "gap", "how ours came to be")


@dataclass(frozen=True)
class Report:
    """One table or figure.

    Attributes:
        name: In the catalog.
        title: One line.
        paper: Key in docs/papers.bib and the place, such as "espnetv2 Table 2".
        remarks: Sentences below the table; numbers in them are computed.
        series: Plain values that the figure is drawn from, and that are written with the rows.
        arrays: Large values that only the figure needs.
    """

    name: str
    title: str
    paper: str
    rows: tuple[Row, ...]
    remarks: tuple[str, ...] = ()
    series: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """What `reproduce_NAME.json` holds."""
        return {
            "name": self.name,
            "title": self.title,
            "paper": self.paper,
            "rows": [row.to_json() for row in self.rows],
            "remarks": list(self.remarks),
            "series": self.series,
        }


def text(document: dict[str, Any]) -> str:
    """The report for a terminal: aligned columns, never wrapped."""
    table = [_HEADER, *(_cells(row) for row in document["rows"])]
    widths = [max(len(line[i]) for line in table) for i in range(len(_HEADER))]
    lines = [f"{document['name']}: {document['title']} ({document['paper']})"]
    for cells in table:
        what, *numbers, how = cells
        padded = [cell.rjust(width) for cell, width in zip(numbers, widths[1:4], strict=True)]
        lines.append("  ".join([what.ljust(widths[0]), *padded, how]).rstrip())
    return "\n".join([*lines, *document["remarks"]])


def markdown(document: dict[str, Any], *, up: str = "") -> str:
    """The report as a section of a page.

    Args:
        up: Before links into the repository, such as "../" from the folder docs.
    """
    lines = [f"## {document['title']}", ""]
    lines += [f"`espnetv2 reproduce {document['name']}`: {document['paper']}", ""]
    lines += ["| " + " | ".join(_HEADER) + " |", "|---" * len(_HEADER) + "|"]
    for row in document["rows"]:
        cells = _cells(row, link=up, code=True)
        lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    lines.append("")
    for remark in document["remarks"]:
        lines += [remark, ""]
    return "\n".join(lines)


def summary(documents: Sequence[dict[str, Any]]) -> str:
    """One line: how many rows there are of each kind."""
    hows: dict[str, int] = {}
    for document in documents:
        for row in document["rows"]:
            hows[row["how"]] = hows.get(row["how"], 0) + 1
    kinds = ", ".join(f"{number} {how}" for how, number in hows.items())
    return f"{sum(hows.values())} rows: {kinds}"


def _cells(row: dict[str, Any], *, link: str = "", code: bool = False) -> list[str]:
    how = _how(row, link=link, code=code)
    if row.get("note"):
        how += f"; {row['note']}"
    return [row["what"], row["paper"], row["shown"], row["gap"], how]


def _how(row: dict[str, Any], *, link: str, code: bool) -> str:
    how, evidence = row["how"], row["evidence"]
    if not evidence:
        return str(how)
    if how == "needs data":
        name, _, command = evidence.partition(": ")
        return f"needs {name}: `{command}`" if code else f"needs {evidence}"
    path = evidence.partition("#")[0]
    if code and path.endswith(".json"):
        command = evidence.partition("#espnetv2 ")[2]
        behind = f": `espnetv2 {command}`" if command else ""
        return f"{how} ([{path}]({link}{path})){behind}"
    return f"{how} (`{evidence}`)" if code else f"{how} ({evidence})"
