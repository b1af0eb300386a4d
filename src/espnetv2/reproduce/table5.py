"""Table 5: grouped and plain point-wise convolutions before the branches.

Paper: espnetv2 Table 5, sec. 5.
"""

from __future__ import annotations

from espnetv2.reproduce import counting
from espnetv2.reproduce.report import Report
from espnetv2.reproduce.row import Row
from espnetv2.reproduce.sources import Sources, needs

ROWS = {
    "espnetv2_s0_5": ("grouped, s = 0.5", "1.24 M", "28 M", "57.7"),
    "espnetv2_s0_5_plain_reduction": ("plain, s = 0.5", "1.30 M", "39 M", "57.14"),
    "espnetv2_s1_0": ("grouped, s = 1.0", "1.67 M", "86 M", "66.1"),
    "espnetv2_s1_0_plain_reduction": ("plain, s = 1.0", "1.92 M", "127 M", "67.14"),
}


def build(sources: Sources) -> Report:
    """Count each network; accuracy needs ImageNet."""
    rows: list[Row] = []
    for name, (what, parameters, macs, top1) in ROWS.items():
        rows += counting.pair(name, (parameters, macs), what)
        command = f"espnetv2 train imagenet --data DATA/imagenet --set model={name}"
        rows.append(needs(f"{what}, top-1", top1, "ImageNet", command))
    return Report(
        "table5",
        "Grouped and plain point-wise convolutions",
        "espnetv2 Table 5",
        tuple(rows),
        (
            "The printed counts follow when the reduction before the branches alone is plain; "
            "the 1x1 behind them stays grouped.",
        ),
    )
