"""`espnetv2 models`: every network, what it costs and which weights it has."""

from __future__ import annotations

import json
from fnmatch import fnmatch
from typing import Annotated, Any

import typer

from espnetv2.cli.table import print_table
from espnetv2.errors import unknown
from espnetv2.models.catalog import CATALOG, counts
from espnetv2.weights.published import Published, published_for


def models(
    pattern: Annotated[
        str, typer.Argument(help="Only names like this, with * and ?; a part of a name also works.")
    ] = "*",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list.")] = False,
) -> None:
    """List the networks: task, parameters, multiply-adds, published weights and scores.

    MACs are multiply-adds of convolutions for one picture of the input size, as the papers count.
    Parameters are those of the official layout. The networks that the papers compare with come
    last.
    """
    names = [name for name in CATALOG if _matches(name, pattern)]
    if not names:
        raise unknown("model", pattern, CATALOG)
    rows = [_row(name) for name in names]
    if as_json:
        print(json.dumps(rows, indent=1))
    else:
        _print_rows("networks", [row for row in rows if not row["baseline"]])
        _print_rows("what the papers compare with", [row for row in rows if row["baseline"]])


def _matches(name: str, pattern: str) -> bool:
    wild = any(sign in pattern for sign in "*?[")
    return fnmatch(name, pattern if wild else f"*{pattern.partition('.')[0]}*")


def _row(name: str) -> dict[str, Any]:
    entry = CATALOG[name]
    return {
        "name": name,
        "task": entry.task,
        **counts()[name],
        "input_size": list(entry.input_size),
        "num_classes": entry.num_classes,
        "weights": [_weights(row) for row in published_for(name)],
        "baseline": entry.baseline,
        "extra": entry.extra,
        "paper": entry.paper,
    }


def _weights(row: Published) -> dict[str, Any]:
    size = row.size or (360, 480)
    return {
        "name": row.name,
        "metric": row.metric,
        "score": row.score,
        **counts()[row.name],
        "input_size": list(size),
        "licence": row.licence,
        "url": row.url,
        "sha256": row.sha256,
    }


def _print_rows(title: str, rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    lines: list[list[str]] = []
    for row in rows:
        height, width = row["input_size"]
        cost = [f"{row['parameters'] / 1e6:.3f} M", f"{row['macs'] / 1e6:.1f} M"]
        lines.append([row["name"], row["task"], *cost, f"{height}x{width}"])
        lines += [[f"    {_describe(weights)}"] for weights in row["weights"]]
    print(f"{title}\n")
    print_table(["name", "task", "parameters", "MACs", "input"], lines, left=2)
    print()


def _describe(weights: dict[str, Any]) -> str:
    tag = "." + str(weights["name"]).partition(".")[2]
    if weights["score"] is None:
        return tag
    return f"{tag}  {weights['metric']} {weights['score']:g}"
