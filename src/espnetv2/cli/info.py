"""`espnetv2 info`: a network layer by layer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from espnetv2.errors import UserError

if TYPE_CHECKING:
    from espnetv2.profiling.complexity import Complexity


def info(
    model: Annotated[str, typer.Argument(help="Name of a network, with or without weight tag.")],
    size: Annotated[
        str | None, typer.Option(help="Input as HEIGHTxWIDTH; default: the network's own.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show every layer: output shape, parameters, multiply-adds, share, receptive field.

    The receptive field is the theoretical one, in input pixels; it may be larger than the picture.
    """
    from espnetv2.profiling.complexity import described, measure_by_name

    pair = None if size is None else parse_size(size)
    counted = measure_by_name(model, size=pair)
    height, width = pair or described(model)[2]
    if as_json:
        head = {"name": model, "input_size": [height, width], **_totals(counted)}
        print(json.dumps(head | {"layers": [layer.__dict__ for layer in counted.layers]}, indent=1))
    else:
        _print_table(f"{model} at {height}x{width}", counted)


def parse_size(text: str) -> tuple[int, int]:
    """(height, width) of "HEIGHTxWIDTH", or of one number for a square.

    >>> parse_size("512x1024"), parse_size("224")
    ((512, 1024), (224, 224))
    """
    sides = text.lower().split("x")
    if not 1 <= len(sides) <= 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise UserError(f"size {text!r} is not HEIGHTxWIDTH, such as 512x1024")
    return int(sides[0]), int(sides[-1])


def _totals(counted: Complexity) -> dict[str, Any]:
    return {
        "parameters": counted.parameters,
        "live_parameters": counted.live_parameters,
        "macs": counted.macs,
        "transposed_macs": counted.transposed_macs,
        "linear_macs": counted.linear_macs,
    }


def _print_table(title: str, counted: Complexity) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("layer", no_wrap=True)
    table.add_column("kind", no_wrap=True)
    for column in ("output", "parameters", "MACs", "share", "receptive field"):
        table.add_column(column, justify="right", no_wrap=True)
    total = counted.macs + counted.transposed_macs + counted.linear_macs
    for layer in counted.layers:
        field = layer.receptive_field
        table.add_row(
            layer.name,
            layer.kind,
            "x".join(str(side) for side in layer.shape),
            f"{layer.parameters:,}",
            f"{layer.macs:,}",
            f"{layer.macs / total:.1%}" if total and layer.macs else "",
            "" if field is None else f"{field[0]:.0f}x{field[1]:.0f}",
        )
    console = Console()
    console.print(table)
    idle = counted.parameters - counted.live_parameters
    console.print(
        f"parameters {counted.parameters:,} ({counted.live_parameters:,} live, {idle:,} idle in the"
        f" official layout)\nMACs: convolutions {counted.macs:,}, transposed convolutions"
        f" {counted.transposed_macs:,}, linear {counted.linear_macs:,}"
    )
