"""`espnetv2 eval`: judge a network on a data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from espnetv2.cli.size import parse_size
from espnetv2.errors import UserError, unknown

if TYPE_CHECKING:
    from rich.console import Console

    from espnetv2.data.sample import Dataset
    from espnetv2.tasks.scores import Scores

_TITLES = {
    "mean_iou": "mean IoU",
    "mean_recall": "class average (mean recall)",
    "global_accuracy": "global accuracy",
    "category_mean_iou": "mean IoU of categories",
    "meter_mean_iou": "mean IoU with the untrained channel",
    "top1": "top-1",
    "top5": "top-5",
}
_HEADS = {"iou": "IoU", "top1": "top-1", "top5": "top-5"}


def eval_(
    model: Annotated[str, typer.Argument(help="A published name or a weights file.")],
    dataset: Annotated[str, typer.Option(help="camvid, cityscapes, voc or imagefolder.")],
    data: Annotated[Path, typer.Option(help="Folder of the data set; see docs/datasets.md.")],
    split: Annotated[str, typer.Option(help="train, val, test, ...")] = "val",
    protocol: Annotated[
        list[str] | None,
        typer.Option(help='How to score; may be repeated; "all" for every one that fits.'),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first pictures.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures per forward pass.")] = 1,
    size: Annotated[
        str | None, typer.Option(metavar="HxW", help="Input size; the weights' own by default.")
    ] = None,
    squashed: Annotated[
        bool, typer.Option(help="voc: pictures were resized to one size, masks were not.")
    ] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")] = "cpu",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead of tables.")
    ] = False,
) -> None:
    """Judge a network on a data set, under named protocols; all share one forward pass."""
    from espnetv2.data.catalog import DATASETS
    from espnetv2.tasks.protocols import choose

    if dataset not in DATASETS:
        raise unknown("data set", dataset, DATASETS)
    protocols = choose(protocol or [], dataset=dataset)
    shape = None if size is None else parse_size(size)

    import torch
    from rich.console import Console

    from espnetv2.predict.predictor import load
    from espnetv2.tasks.evaluate import evaluate, network_predict

    if threads is not None:
        torch.set_num_threads(threads)
    predictor = load(model, device=device, size=shape)
    _check_task(predictor.task, dataset)
    samples = _read(dataset, data, split, classes=predictor.classes, squashed=squashed)
    console = Console(stderr=as_json)
    with _Progress(console) as progress:
        scores = evaluate(
            network_predict(predictor.model, predictor.preprocessing, device=predictor.device),
            samples,
            protocols,
            batch_size=batch_size,
            limit=limit,
            progress=progress.update,
        )
    if as_json:
        head = {"model": model, "network": predictor.name, "dataset": dataset, "split": split}
        print(json.dumps({**head, "scores": [score.to_json() for score in scores.values()]}))
    else:
        _show(console, list(scores.values()))


def _check_task(task: str, dataset: str) -> None:
    needed = "classification" if dataset == "imagefolder" else "segmentation"
    if task != needed:
        raise UserError(f"{dataset} is for {needed}, but the network does {task}; choose another")


def _read(
    dataset: str, root: Path, split: str, *, classes: tuple[str, ...], squashed: bool
) -> Dataset:
    from espnetv2.data import image_folder, voc
    from espnetv2.data.catalog import DATASETS

    if squashed and dataset != "voc":
        raise UserError(f"--squashed is for --dataset voc, not {dataset}; leave it out")
    if dataset == "voc":
        return voc.read(root, split, squashed=squashed)
    if dataset == "imagefolder":
        return image_folder.read(root, split, classes=classes)
    return DATASETS[dataset](root, split)


class _Progress:
    """A bar with rate and time left, which goes away when done."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeRemainingColumn as TimeLeft

        self.bar = Progress(
            TextColumn("evaluating"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeLeft(),
            console=console,
            transient=True,
        )
        self.task = self.bar.add_task("", total=None, rate="")

    def __enter__(self) -> _Progress:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def update(self, done: int, total: int) -> None:
        """Move on."""
        elapsed = self.bar.tasks[0].elapsed or 0.0
        rate = f"{done / elapsed:.1f}/s" if elapsed else ""
        self.bar.update(self.task, completed=done, total=total, rate=rate)


def _show(console: Console, scores: list[Scores]) -> None:
    from rich.table import Table

    from espnetv2.tasks.protocols import PROTOCOLS

    for score in scores:
        names = list(next(iter(score.per_class.values())).values)
        heads = [_HEADS.get(name, name) for name in names]
        counted = "pixels" if "iou" in names else "pictures"
        table = Table("class", *heads, counted, title=f"{score.protocol} (per cent)")
        for column in table.columns[1:]:
            column.justify = "right"
        for name, line in score.per_class.items():
            cells = [_percent(value) for value in line.values.values()]
            style = None if line.averaged else "dim"
            label = name if line.averaged else f"{name} (not averaged)"
            table.add_row(label, *cells, f"{line.count:,}", style=style)
        console.print(table)
    summary: Any = Table("protocol", "score", "per cent", title="summary")
    for score in scores:
        for row, (name, value) in enumerate(score.metrics.items()):
            label = score.protocol if row == 0 else ""
            summary.add_row(label, _TITLES.get(name, name), _percent(value))
    console.print(summary)
    for score in scores:
        console.print(f"{score.protocol}: {PROTOCOLS[score.protocol].summary}", style="dim")
    last = scores[-1]
    rate = last.pictures / last.seconds
    console.print(f"{last.pictures} pictures in {last.seconds:.1f} s ({rate:.1f} per second)")


def _percent(value: float) -> str:
    return "-" if value != value else f"{value:.2f}"
