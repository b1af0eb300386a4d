"""`espnetv2 data`: look a data set over, weigh its classes, draw COCO for VOC."""

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
    help="Look a data set over, or convert it, before training on it.",
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


@data_app.command("shards")
def shards(
    source: Annotated[
        Path, typer.Argument(metavar="SRC", help="Folder with <split>/<class>/ and pictures.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the shards.")],
    shard_size: Annotated[int, typer.Option(min=1, help="Pictures of a shard.")] = 5000,
    train_split: Annotated[str, typer.Option(help="Name of the training split.")] = "train",
    val_split: Annotated[str, typer.Option(help='Of the validation split; "" for none.')] = "val",
    as_json: _Json = False,
) -> None:
    """Pack class folders into WebDataset shards, for `data.format: webdataset`."""
    from espnetv2.data.shard_writer import write_shards

    splits = list(dict.fromkeys(split for split in (train_split, val_split) if split))
    if not splits:
        raise UserError("no split to pack; name one with --train-split")
    with _Bar() as bar:
        written = write_shards(source, out, splits, shard_size=shard_size, progress=bar.update)
    if as_json:
        print(json.dumps({"out": str(out), "splits": written}))
        return
    for split, rows in written.items():
        samples, size = (sum(row[key] for row in rows) for key in ("samples", "bytes"))
        print(f"{split}: {samples:,} pictures in {len(rows)} shards, {size / 1e6:,.1f} MB")


@data_app.command("coco2voc")
def coco2voc(
    coco: Annotated[Path, typer.Argument(help="Folder of COCO: annotations/ and the pictures.")],
    out: Annotated[Path, typer.Option(help="Folder for the masks and their list.")],
    split: Annotated[str, typer.Option(help="Of COCO.")] = "train2017",
    min_side: Annotated[
        int, typer.Option(min=1, help="Leave out pictures with a side shorter than this.")
    ] = 256,
    as_json: _Json = False,
) -> None:
    """Draw COCO's instances as masks of VOC's 21 classes, and list them for training.

    Can be stopped and run again: masks that are there stay.
    """
    from espnetv2.data.coco_to_voc import convert

    with _Bar() as bar:
        done = convert(coco, out, split=split, min_side=min_side, progress=bar.update)
    if not done.pictures:
        raise UserError(
            f"no picture is left of {done.small + done.empty} with VOC's classes: {done.small} too "
            f"small, {done.empty} of one value; lower --min-side, or look at {coco}"
        )
    if as_json:
        print(json.dumps({**done.__dict__, "list": str(done.list)}))
        return
    print(
        f"{done.pictures} pictures in {done.list} ({done.drawn} masks drawn now; left out: "
        f"{done.small} too small, {done.empty} of one value)\n"
        f"train on them too: espnetv2 train voc-segmentation --data VOC "
        f"--set 'data.extra=[{done.list}]'"
    )


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
