"""Eq. 1, Fig. 4 and Fig. 8: the learning rates, the paper's and the official code's.

Paper: espnetv2 Eq. 1, Fig. 4, Fig. 8, sec. 4.1 and 5.
"""

from __future__ import annotations

from typing import Any

from espnetv2.reproduce import style
from espnetv2.reproduce.report import Report
from espnetv2.reproduce.row import Row
from espnetv2.reproduce.sources import Sources, needs
from espnetv2.training.schedules import Cyclic, PaperCyclic, Steps

MAXIMUM, MINIMUM, CYCLE, EPOCHS = 0.5, 0.1, 5, 300
HALVINGS = (50, 100, 130, 160, 190, 220, 250, 280)
RECIPES = "training/schedules.py"


def build_eq1(sources: Sources) -> Report:
    """Eq. 1 as printed, beside the rates that our schedule gives."""
    ours = PaperCyclic(name="paper-cyclic")
    rows = [
        Row(
            f"rate in epoch {epoch}",
            f"{MAXIMUM - epoch % CYCLE * MINIMUM:.1f}",
            ours.at(epoch, EPOCHS),
            "counted",
            RECIPES,
        )
        for epoch in range(11)
    ]
    return Report(
        "eq1",
        "The cyclic learning rate",
        "espnetv2 Eq. 1: maximum - (epoch mod T) x minimum",
        tuple(rows),
        (
            "Train with it: `espnetv2 train imagenet-eq1`. The official code takes one warm-up "
            "epoch first and halves one epoch later ([D1](deviations.md)); see fig4.",
        ),
    )


def build_fig4(sources: Sources) -> Report:
    """Both schedules over 300 epochs."""
    paper, code = PaperCyclic(name="paper-cyclic"), Cyclic(name="cyclic", minimum=MINIMUM)
    rows = []
    for count, epoch in enumerate((0, *HALVINGS)):
        rows.append(
            Row(
                f"highest rate from epoch {epoch} on",
                str(MAXIMUM / 2**count),
                paper.at(epoch, EPOCHS),
                "counted",
                RECIPES,
                note=f"official code: {code.at(epoch + 1, EPOCHS):g} from epoch {epoch + 1} on",
            )
        )
    epochs = range(EPOCHS)
    return Report(
        "fig4",
        "Warm restarts: the paper's schedule and the official code's",
        "espnetv2 Fig. 4 and sec. 4.1",
        tuple(rows),
        ("Both exist here, as `paper-cyclic` and `cyclic` ([D1](deviations.md)).",),
        {
            "paper": [paper.at(epoch, EPOCHS) for epoch in epochs],
            "code": [code.at(epoch, EPOCHS) for epoch in epochs],
        },
    )


def build_fig8(sources: Sources) -> Report:
    """The schedules that Fig. 8 compares; its accuracies need ImageNet."""
    fixed = Steps(name="steps", rate=0.1, steps=(30, 60))
    short = Cyclic(name="cyclic", minimum=MINIMUM, steps=(31, 61), factor=0.1)
    long = Cyclic(name="cyclic", minimum=MINIMUM)
    train = "espnetv2 train imagenet-ablation --data DATA/imagenet"
    cycle = "--set schedule='{name: cyclic, minimum: 0.1, steps: [31, 61], factor: 0.1}'"
    rows = (
        needs("fixed, 90 epochs, top-1", "61.20", "ImageNet", train),
        needs("cyclic, 90 epochs, top-1", "62.17", "ImageNet", f"{train} {cycle}"),
        needs(
            "cyclic, 300 epochs, top-1",
            "66.10",
            "ImageNet",
            "espnetv2 train imagenet_s1_0 --data DATA/imagenet",
        ),
        needs(
            "ShuffleNet v1, cyclic, 300 epochs, top-1",
            "65.86",
            "ImageNet",
            "espnetv2 train shufflenetv1 --data DATA/imagenet",
        ),
    )
    return Report(
        "fig8",
        "Fixed and cyclic schedules, 90 and 300 epochs",
        "espnetv2 Fig. 8, s = 1.0",
        rows,
        ("The figure shows the three learning rates; no curve of accuracy was run here.",),
        {
            "fixed": [fixed.at(epoch, 90) for epoch in range(90)],
            "cyclic": [short.at(epoch, 90) for epoch in range(90)],
            "cyclic, 300": [long.at(epoch, EPOCHS) for epoch in range(EPOCHS)],
        },
    )


def draw_fig4(document: dict[str, Any], arrays: dict[str, Any]) -> Any:
    """Three cycles at the left, 300 epochs at the right."""
    series = document["series"]
    drawn = style.figure(9.6, 3.2)
    left, right = drawn.subplots(1, 2, width_ratios=(1, 1.7))
    for axis, stop, size in ((left, 17, 4.0), (right, EPOCHS, 0.0)):
        form = {"lw": 1.8 if size else 0.9, "ms": size}
        axis.plot(series["paper"][:stop], "o-", color=style.ORANGE, label="Eq. 1", **form)
        axis.plot(series["code"][:stop], "o-", color=style.BLUE, label="official code", **form)
    style.panel(left, "Three cycles", x="epoch", y="learning rate")
    left.set_ylim(0, 0.56)
    left.set_xticks(range(0, 17, 2))
    style.legend(left, loc="lower left", ncols=2, borderaxespad=0.1)
    style.panel(right, f"All {EPOCHS} epochs", x="epoch")
    right.set_yscale("log")
    for epoch in HALVINGS:
        right.axvline(epoch, color=style.GREY, lw=0.7, ls=":")
    return drawn


def draw_fig8(document: dict[str, Any], arrays: dict[str, Any]) -> Any:
    """The three rates, logarithmic."""
    drawn = style.figure(9, 3.2)
    axis = drawn.subplots()
    labels = {
        "fixed": ("fixed, 90 epochs", style.GREY),
        "cyclic": ("cyclic, 90 epochs", style.ORANGE),
        "cyclic, 300": ("cyclic, 300 epochs", style.BLUE),
    }
    for name, (label, colour) in labels.items():
        axis.plot(document["series"][name], color=colour, lw=1.3, label=label)
    axis.set_yscale("log")
    style.panel(axis, "Learning rates of the ablation", x="epoch", y="learning rate")
    style.legend(axis, loc="upper right")
    return drawn
