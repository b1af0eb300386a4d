"""Table 3: language models on the Penn Treebank.

Paper: espnetv2 Table 3, sec. 4.3.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from espnetv2.reproduce import counting, style
from espnetv2.reproduce.report import Report
from espnetv2.reproduce.row import Row
from espnetv2.reproduce.sources import Sources, needs

RUN = "results/ptb_eru_7m.json"
PERPLEXITY = {
    "Variational LSTM (20 M)": "78.6",
    "SRU (24 M)": "60.3",
    "QRNN (18 M)": "78.3",
    "AWD-LSTM (24 M)": "57.3",
    "PRU, standard dropout (19 M)": "62.42",
    "ERU (15 M)": "63.47",
    "ERU (7 M)": "73.63",
}
WORDS, EMBEDDING, WIDTH = 10_000, 400, 1150


def build(sources: Sources) -> Report:
    """Count, and read the run that was made here."""
    epochs = sources.recorded(f"{RUN}#epochs")
    train = "espnetv2 train {} --data DATA/ptb"
    rows = (
        counting.parameters("eru_lm_7m", "7 M", "ERU, small"),
        counting.parameters("eru_lm_15m", "15 M", "ERU, large"),
        Row(
            "AWD-LSTM, parameters",
            "24 M",
            lstm_parameters(),
            "counted",
            f"three torch LSTMs of {WIDTH}, tied embedding of {EMBEDDING}",
        ),
        sources.committed(
            Row(
                "ERU, small, test perplexity",
                "73.63",
                None,
                "trained here at small scale",
                f"{RUN}#other_splits/test/perplexity",
                note=f"{epochs or 'few'} epochs of the recipe's 500: {train.format('ptb')}",
            )
        ),
        needs("ERU, large, test perplexity", "63.47", "Penn Treebank", train.format("ptb-15m")),
    )
    return Report(
        "table3",
        "Language models on the Penn Treebank",
        "espnetv2 Table 3",
        rows,
        (
            "How the ERU is built beyond the paper's one sentence is our reading "
            "([ERU](eru.md), [D21](deviations.md)). The paper's other rows are quoted from their "
            "papers; this package has no such networks.",
        ),
        {
            "paper": PERPLEXITY,
            "validation_by_epoch": sources.recorded(f"{RUN}#validation_perplexity_by_epoch"),
            "test": sources.recorded(f"{RUN}#other_splits/test/perplexity"),
        },
    )


def lstm_parameters() -> int:
    """AWD-LSTM's count: three layers 400, 1150, 1150, 400, decoder tied to the embedding."""
    sides = ((EMBEDDING, WIDTH), (WIDTH, WIDTH), (WIDTH, EMBEDDING))
    with torch.device("meta"):
        layers = [nn.LSTM(before, after) for before, after in sides]
    weights = sum(p.numel() for layer in layers for p in layer.parameters())
    return weights + WORDS * EMBEDDING + WORDS  # the decoder has a bias of its own


def draw(document: dict[str, Any], arrays: dict[str, Any]) -> Any:
    """Our epochs, above what the paper's models end at."""
    series = document["series"]
    drawn = style.figure(7.6, 3.6)
    axis = drawn.subplots()
    style.panel(axis, "Perplexity on the Penn Treebank", x="epoch", y="perplexity")
    curve = series["validation_by_epoch"]
    epochs = range(1, len(curve) + 1)
    axis.plot(epochs, curve, "o-", color=style.BLUE, lw=1.8, label="ERU 7 M here, validation")
    axis.plot([len(curve)], [series["test"]], "D", color=style.BLUE, label="the same, test")
    for index, (name, value) in enumerate(series["paper"].items()):
        if name.startswith(("ERU", "AWD")):
            colour = style.ORANGE if name.startswith("ERU") else style.GREY
            axis.axhline(float(value), color=colour, lw=1.1, ls="--" if index % 2 else "-")
            axis.annotate(
                f"{name} {value}",
                (1.005, float(value)),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize=8.5,
                color=colour,
            )
    axis.set_yscale("log")
    axis.set_yticks([50, 60, 70, 80, 100, 150, 200, 250], [50, 60, 70, 80, 100, 150, 200, 250])
    axis.minorticks_off()
    axis.set_ylim(50, 280)
    style.legend(axis, loc="upper right")
    return drawn
