"""How `espnetv2 eval` shows what goes on and what came out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from espnetv2.tasks.scores import Scores

_TITLES = {
    "mean_iou": "mean IoU",
    "mean_recall": "class average (mean recall)",
    "global_accuracy": "global accuracy",
    "category_mean_iou": "mean IoU of categories",
    "meter_mean_iou": "mean IoU with the untrained channel",
    "top1": "top-1",
    "top5": "top-5",
    "f1_class": "F1, mean over classes",
    "f1_overall": "F1, overall",
    "map": "mean average precision",
    "ap": "mean average precision",
    "ap50": "mean average precision, IoU 0.50",
    "ap75": "mean average precision, IoU 0.75",
    "loss": "loss of a word, in nats",
}
_HEADS = {
    "iou": "IoU",
    "top1": "top-1",
    "top5": "top-5",
    "f1": "F1",
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
}
_COUNTED = {"iou": "pixels", "ap50": "boxes"}


class Progress:
    """A bar with rate and time left, which goes away when done."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar
        from rich.progress import TimeRemainingColumn as TimeLeft

        self.bar = Bar(
            TextColumn("evaluating"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeLeft(),
            console=console,
            transient=True,
        )
        self.task = self.bar.add_task("", total=None, rate="")

    def __enter__(self) -> Progress:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def update(self, done: int, total: int) -> None:
        """Move on."""
        elapsed = self.bar.tasks[0].elapsed or 0.0
        rate = f"{done / elapsed:.1f}/s" if elapsed else ""
        self.bar.update(self.task, completed=done, total=total, rate=rate)


def show(console: Console, scores: list[Scores]) -> None:
    """A table of classes for each protocol, a summary, and how long it took."""
    from espnetv2.tasks.protocols import PROTOCOLS

    for score in scores:
        if score.per_class:
            console.print(_class_table(score))
    console.print(_summary_table(scores))
    for score in scores:
        console.print(f"{score.protocol}: {PROTOCOLS[score.protocol].summary}", style="dim")
    last = scores[-1]
    rate = last.pictures / last.seconds
    console.print(f"{last.pictures} {last.unit} in {last.seconds:.1f} s ({rate:.1f} per second)")


def _class_table(score: Scores) -> Any:
    from rich.table import Table

    names = list(next(iter(score.per_class.values())).values)
    heads = [_HEADS.get(name, name) for name in names]
    counted = next((_COUNTED[name] for name in names if name in _COUNTED), "pictures")
    table = Table("class", *heads, counted, title=f"{score.protocol} (per cent)")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, line in score.per_class.items():
        cells = [_number(value) for value in line.values.values()]
        style = None if line.averaged else "dim"
        label = name if line.averaged else f"{name} (not averaged)"
        table.add_row(label, *cells, f"{line.count:,}", style=style)
    return table


def _summary_table(scores: list[Scores]) -> Any:
    from rich.table import Table

    text = scores[0].unit == "words"
    summary = Table("protocol", "score", "value" if text else "per cent", title="summary")
    for score in scores:
        for row, (name, value) in enumerate(score.metrics.items()):
            label = score.protocol if row == 0 else ""
            summary.add_row(label, _TITLES.get(name, name), _number(value))
    return summary


def _number(value: float) -> str:
    return "-" if value != value else f"{value:.2f}"
