"""Table 1: parameters and receptive fields of kinds of convolution, and the EESP unit's saving.

Paper: espnetv2 Table 1, sec. 3.2.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from espnetv2.layers.eesp import EESP, EESPA
from espnetv2.layers.esp import ESP
from espnetv2.profiling.effective_field import effective_field
from espnetv2.reproduce import style
from espnetv2.reproduce.report import Report
from espnetv2.reproduce.row import Row
from espnetv2.reproduce.sources import Sources

TAPS, CHANNELS, GROUPS, RATE = 3, 64, 4, 4


def build(sources: Sources) -> Report:
    """Count layers that are made of torch's own convolutions; formulas beside them."""
    n, c, g, r = TAPS, CHANNELS, GROUPS, RATE
    formulas = {
        "standard": (n * n * c * c, n),
        "group": (n * n * c * c // g, n),
        "depth-wise separable": (n * n * c + c * c, n),
        "depth-wise dilated separable": (n * n * c + c * c, (n - 1) * r + 1),
    }
    rows, series = [], {}
    for name, layers in convolutions().items():
        weights = sum(p.numel() for p in layers.parameters())
        side = span(layers)
        rows.append(Row(f"{name}, parameters", str(formulas[name][0]), weights, "counted"))
        rows.append(
            Row(
                f"{name}, receptive field",
                str(formulas[name][1]),
                side,
                "counted",
                note="span of the gradient",
            )
        )
        series[name] = {"parameters": weights, "receptive_field": side}
    return Report(
        "table1",
        "Kinds of convolution",
        "espnetv2 Table 1 and sec. 3.2",
        (*rows, *_unit_rows()),
        (
            f"Formulas and counts for n = {n}, c = {c} channels in and out, g = {g} groups and "
            f"dilation r = {r}.",
        ),
        series,
    )


def convolutions() -> dict[str, nn.Module]:
    """The four, without biases."""
    c, half = CHANNELS, TAPS // 2

    def depthwise(rate: int) -> nn.Module:
        return nn.Conv2d(c, c, TAPS, padding=half * rate, dilation=rate, groups=c, bias=False)

    def pointwise() -> nn.Module:
        return nn.Conv2d(c, c, 1, bias=False)

    return {
        "standard": nn.Conv2d(c, c, TAPS, padding=half, bias=False),
        "group": nn.Conv2d(c, c, TAPS, padding=half, groups=GROUPS, bias=False),
        "depth-wise separable": nn.Sequential(depthwise(1), pointwise()),
        "depth-wise dilated separable": nn.Sequential(depthwise(RATE), pointwise()),
    }


def span(layers: nn.Module) -> int:
    """Side of the square that the centre's gradient spans, in pixels."""
    gradient = effective_field(layers, (33, 33), channels=CHANNELS, inputs=1).gradient
    rows: Tensor = torch.nonzero(gradient)[:, 0]
    return int(rows.max() - rows.min()) + 1


def draw(document: dict[str, Any], arrays: dict[str, Any]) -> Any:
    """Parameters and receptive fields as bars."""
    drawn = style.figure(9, 2.6)
    left, right = drawn.subplots(1, 2)
    names = list(document["series"])
    colours = [style.GREY, style.GREY, style.GREY, style.BLUE]
    counts = [document["series"][name]["parameters"] for name in names]
    sides = [document["series"][name]["receptive_field"] for name in names]
    style.bars(left, names, counts, colours=colours, form="{:,.0f}")
    style.panel(left, "Parameters", grid="x")
    style.bars(right, names, sides, colours=colours, form="{:.0f}")
    style.panel(right, "Receptive field, pixels a side", grid="x")
    right.set_yticklabels([])
    return drawn


def _unit_rows() -> list[Row]:
    """Sec. 3.2's example: M = 240, g = K = 4, d = 60, and the equality of Fig. 1b and 1c."""
    m, k, g = 240, 4, 4
    d = m // k
    before, after = m * d + 9 * d * d * k, m * d // g + (9 + d) * d * k
    esp, eesp = ESP(m, m, branches=k), EESP(m, m, branches=k)
    return [
        Row("ESP unit of 240 channels, weights", str(before), _weights(esp), "counted"),
        Row("EESP unit of 240 channels, weights", str(after), _weights(eesp), "counted"),
        Row("times fewer weights", "7", _weights(esp) / _weights(eesp), "counted"),
        Row(
            "EESP-A (Fig. 1b) less EESP (Fig. 1c), weights",
            "0",
            _weights(EESPA(eesp)) - _weights(eesp),
            "counted",
            note="one grouped 1x1 is K separate ones",
        ),
    ]


def _weights(unit: nn.Module) -> int:
    return sum(m.weight.numel() for m in unit.modules() if isinstance(m, nn.Conv2d))
