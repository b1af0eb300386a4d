"""`espnetv2 data`: look a data set over, and weigh its classes."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from espnetv2.errors import UserError

if TYPE_CHECKING:
    from espnetv2.data.scans import Problem

data_app = typer.Typer(
    name="data",
    help="Look a data set over before training on it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_SHOWN = 10

_Format = Annotated[
    str,
    typer.Option(
        help="imagefolder, csv, masks, camvid, cityscapes, voc-seg, voc-boxes, coco-boxes or "
        "coco-multilabel."
    ),
]
_Data = Annotated[Path, typer.Option(help="Folder of the data set.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@data_app.command("check")
def check(
    data: _Data,
    format: _Format,
    train_split: Annotated[str, typer.Option(help="Name of the training split.")] = "train",
    val_split: Annotated[str, typer.Option(help='Of the validation split; "" for none.')] = "val",
    as_json: _Json = False,
) -> None:
    """Find what ruins runs and say how to mend it; exits with 1 if something does."""
    from espnetv2.data.check import check_data

    splits = list(dict.fromkeys(split for split in (train_split, val_split) if split))
    if not splits:
        raise UserError("no split to look at; name one with --train-split")
    with _Bar() as bar:
        problems = check_data(format, data, splits, progress=bar.update)
    serious = sum(problem.serious for problem in problems)
    if as_json:
        rows = [
            {
                "kind": problem.kind,
                "where": problem.where,
                "what": problem.what,
                "fix": problem.fix,
                "serious": problem.serious,
            }
            for problem in problems
        ]
        print(json.dumps({"format": format, "splits": splits, "problems": rows}))
    else:
        _show(problems)
        print(f"{serious} problem(s), {len(problems) - serious} remark(s)")
    if serious:
        raise typer.Exit(1)


@data_app.command("weights")
def weights(
    data: _Data,
    format: _Format,
    train_split: Annotated[str, typer.Option(help="Name of the training split.")] = "train",
    as_json: _Json = False,
) -> None:
    """Count the classes of the training split and print loss weights, 1 / ln(1.10 + share)."""
    from espnetv2.cli.table import print_table
    from espnetv2.data.class_weights import class_weights
    from espnetv2.data.sources import count_classes

    with _Bar() as bar:
        classes, counts = count_classes(format, data, train_split, progress=bar.update)
    factors = class_weights(counts).tolist()
    numbers = counts.tolist()
    if as_json:
        rows = [
            {"class": name, "count": count, "weight": round(factor, 6)}
            for name, count, factor in zip(classes, numbers, factors, strict=True)
        ]
        print(json.dumps({"format": format, "split": train_split, "classes": rows}))
        return
    total = sum(numbers) or 1
    table = [
        (name, f"{count:,}", f"{100 * count / total:.3f}", f"{factor:.4f}")
        for name, count, factor in zip(classes, numbers, factors, strict=True)
    ]
    print_table(("class", "count", "per cent", "weight"), table)


class _Bar:
    """A bar on stderr that goes away when done."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self.bar = Progress(console=Console(stderr=True), transient=True)
        self.task = self.bar.add_task("reading", total=None)

    def __enter__(self) -> _Bar:
        if sys.stderr.isatty():
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def update(self, split: str, done: int, total: int) -> None:
        """Move on."""
        self.bar.update(self.task, description=split, completed=done, total=total)


def _show(problems: list[Problem]) -> None:
    shown: Counter[str] = Counter()
    for problem in problems:
        shown[problem.kind] += 1
        if shown[problem.kind] <= _SHOWN:
            mark = "problem" if problem.serious else "remark"
            print(f"{mark} ({problem.kind}): {problem.line}")
    for kind, count in shown.items():
        if count > _SHOWN:
            print(f"... and {count - _SHOWN} more of {kind}; --json lists all")
