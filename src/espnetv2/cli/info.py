"""`espnetv2 info`: a network layer by layer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from espnetv2.cli.size import parse_size
from espnetv2.cli.table import print_table
from espnetv2.errors import UserError

if TYPE_CHECKING:
    from espnetv2.profiling.complexity import Complexity


def info(
    model: Annotated[
        str,
        typer.Argument(help="Name of a network, with or without weight tag, or a weights file."),
    ],
    size: Annotated[
        str | None, typer.Option(help="Input as HEIGHTxWIDTH; default: the network's own.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show every layer: output shape, parameters, multiply-adds, share, receptive field.

    The receptive field is the theoretical one, in input pixels; it may be larger than the picture.
    """
    from espnetv2.profiling.complexity import described, measure_by_name
    from espnetv2.weights.load import names_file

    pair = None if size is None else parse_size(size)
    if names_file(model):
        counted, (height, width) = _measure_file(model, pair)
    else:
        counted = measure_by_name(model, size=pair)
        height, width = pair or described(model)[2]
    if as_json:
        head = {"name": model, "input_size": [height, width], **_totals(counted)}
        print(json.dumps(head | {"layers": [layer.__dict__ for layer in counted.layers]}, indent=1))
    else:
        _print_layers(f"{model} at {height}x{width}", counted)


def _measure_file(file: str, size: tuple[int, int] | None) -> tuple[Complexity, tuple[int, int]]:
    """What the network of a weights file costs, and at which size."""
    from espnetv2.models.catalog import entry
    from espnetv2.profiling.complexity import measure
    from espnetv2.weights.load import check_fit, read_weights

    state, header = read_weights(file)
    network, row = check_fit(state, header, source=file), entry(header.model)
    if row.task == "language":
        size = (1, 1)
    height, width = size or header.preprocessing.get("size") or row.input_size
    if row.task != "language" and min(height, width) < 32:
        raise UserError(f"size {height}x{width} is too small; both sides must be 32 or more")
    return measure(network, (height, width), name=header.model), (height, width)


def _totals(counted: Complexity) -> dict[str, Any]:
    return {
        "parameters": counted.parameters,
        "live_parameters": counted.live_parameters,
        "macs": counted.macs,
        "transposed_macs": counted.transposed_macs,
        "linear_macs": counted.linear_macs,
    }


def _print_layers(title: str, counted: Complexity) -> None:
    total = counted.macs + counted.transposed_macs + counted.linear_macs
    rows = [
        [
            layer.name,
            layer.kind,
            "x".join(str(side) for side in layer.shape),
            f"{layer.parameters:,}",
            f"{layer.macs:,}" if layer.macs else "",
            f"{layer.macs / total:.1%}" if total and layer.macs else "",
            _field(layer.receptive_field),
        ]
        for layer in counted.layers
    ]
    print(f"{title}\n")
    header = ["layer", "kind", "output", "parameters", "MACs", "share", "receptive field"]
    print_table(header, rows, left=2)
    idle = counted.parameters - counted.live_parameters
    print(
        f"\nparameters {counted.parameters:,} ({counted.live_parameters:,} live, {idle:,} idle in "
        f"the official layout)\nMACs: convolutions {counted.macs:,}, transposed convolutions "
        f"{counted.transposed_macs:,}, linear {counted.linear_macs:,}"
    )


def _field(size: tuple[float, float] | None) -> str:
    return "" if size is None else f"{size[0]:.0f}x{size[1]:.0f}"
