"""Table 2: the six ESPNetv2 networks, stage by stage.

Paper: espnetv2 Table 2.
"""

from __future__ import annotations

import torch

from espnetv2.models.catalog import entry
from espnetv2.models.espnetv2 import ESPNetv2
from espnetv2.reproduce import counting
from espnetv2.reproduce.report import Report
from espnetv2.reproduce.row import Row
from espnetv2.reproduce.sources import Sources

PRINTED = {
    "s0_5": ("1.24 M", "28 M", (16, 32, 64, 128, 256), 1024),
    "s1_0": ("1.67 M", "86 M", (32, 64, 128, 256, 512), 1024),
    "s1_25": ("1.97 M", "123 M", (32, 80, 160, 320, 640), 1024),
    "s1_5": ("2.31 M", "169 M", (32, 96, 192, 384, 768), 1024),
    "s1_75": ("3.03 M", "224 M", (32, 112, 224, 448, 896), 1280),
    "s2_0": ("3.49 M", "284 M", (32, 128, 256, 512, 1024), 1280),
}
SIDES = "112, 56, 28, 14, 7"
PENULTIMATE = "stages.3.down.act.weight"
"""One slope a channel of the last stage."""


def build(sources: Sources) -> Report:
    """Build all six and read off what they return."""
    rows: list[Row] = []
    for size, (parameters, macs, channels, final) in PRINTED.items():
        name, label = f"espnetv2_{size}", f"s = {size[1:].replace('_', '.')}"
        widths, sides, last = stages(name)
        printed = ", ".join(map(str, (*channels[:4], final)))
        rows += [
            *counting.pair(name, (parameters, macs), label),
            Row(f"{label}, channels of the stages", printed, widths, "counted", name),
            Row(f"{label}, sides of the stages", SIDES, sides, "counted", name),
            Row(
                f"{label}, channels before the last two convolutions",
                str(channels[4]),
                last,
                "counted",
                name,
            ),
        ]
    return Report(
        "table2",
        "The ESPNetv2 networks",
        "espnetv2 Table 2, 224x224, 1000 classes",
        tuple(rows),
        (
            "MACs are multiply-adds of convolutions; the paper leaves the linear layer out "
            "([D24](deviations.md)). It cuts 284.8 M to 284 M and rounds 168.6 M to 169 M "
            "([D95](deviations.md)).",
        ),
        {
            size: {"parameters": found.parameters, "macs": found.macs}
            for size in PRINTED
            if (found := counting.count(f"espnetv2_{size}"))
        },
    )


def stages(name: str) -> tuple[str, str, int]:
    """At 224x224: channels and sides of the five outputs, and channels before the last two."""
    with torch.device("meta"), torch.no_grad():
        network = entry(name).build().eval()
        assert isinstance(network, ESPNetv2)  # the rows of this table are
        backbone = network.backbone
        maps = backbone(torch.zeros(1, 3, 224, 224))
        before = sum(p.numel() for name, p in backbone.named_parameters() if name == PENULTIMATE)
    widths, sides = ([str(m.shape[axis]) for m in maps] for axis in (1, 2))
    return ", ".join(widths), ", ".join(sides), int(before)
