"""`espnetv2 export`: turn weights into what a device's runtime takes."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from espnetv2.cli.size import parse_size
from espnetv2.errors import UserError

if TYPE_CHECKING:
    from espnetv2.deploy.artefact import Artefact
    from espnetv2.deploy.gate import Gate


class Precision(str, Enum):
    """What the runtime computes in."""

    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"
    int8 = "int8"


class Input(str, Enum):
    """What goes into the graph."""

    input = "input"
    pixels = "pixels"


class Output(str, Enum):
    """What comes out of the graph."""

    raw = "raw"
    decoded = "decoded"


def export(
    model: Annotated[str, typer.Argument(help="A published name or a weights file.")],
    to: Annotated[
        str,
        typer.Option(
            help="native, onnx, openvino, executorch, ncnn, coreml, litert; several by commas."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder; each target gets one inside.")] = Path(
        "exported"
    ),
    precision: Annotated[
        Precision | None, typer.Option(help="The target's usual one by default.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="HxW", help="Input size; the weights' own by default.")
    ] = None,
    dynamic: Annotated[bool, typer.Option(help="Leave batch, height and width free.")] = False,
    batch: Annotated[int, typer.Option(min=1, help="Pictures of one call.")] = 1,
    input_: Annotated[
        Input, typer.Option("--input", help="pixels: RGB 0-255, normalised in the graph.")
    ] = Input.input,
    output: Annotated[
        Output, typer.Option(help="decoded: probabilities, class map or boxes after suppression.")
    ] = Output.raw,
    calib: Annotated[
        Path | None, typer.Option(help="int8: a folder of pictures like the device's.")
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option(help="Compare with the network on these pictures.")
    ] = None,
    gate: Annotated[
        str | None,
        typer.Option(metavar="METRIC=POINTS", help="Refuse what loses more, such as miou=0.5."),
    ] = None,
    gate_data: Annotated[Path | None, typer.Option(help="Folder of the gate's data set.")] = None,
    gate_dataset: Annotated[
        str | None, typer.Option(help="camvid, voc, imagefolder, ...; as for `espnetv2 eval`.")
    ] = None,
    gate_split: Annotated[str, typer.Option(help="Of the gate's data set.")] = "val",
    gate_limit: Annotated[
        int | None, typer.Option(min=1, help="Only the gate's first pictures.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead of lines.")
    ] = False,
) -> None:
    """Export a network, compare it with the original, and write nothing that fails.

    Each target's folder holds the runtime's files and export.json: shapes, preprocessing, class
    names, versions, size and the largest difference to the network.
    """
    shape = None if size is None else parse_size(size)
    if dynamic and batch != 1:
        raise UserError("--dynamic leaves the batch free; leave --batch out")
    names = [name.strip() for name in to.split(",") if name.strip()]
    passing = _gate(gate, gate_data, gate_dataset, gate_split, gate_limit)

    from espnetv2.deploy.export import CALIBRATION_PICTURES
    from espnetv2.deploy.export import export as export_one
    from espnetv2.deploy.subject import Settings
    from espnetv2.deploy.targets import check_precision, converter
    from espnetv2.deploy.verify import pictures_in
    from espnetv2.weights.load import load_network

    for name in names:  # all that can be wrong is said before the first one takes minutes
        if precision is not None:
            check_precision(name, precision.value)
        converter(name)
    settings = Settings(
        precision=None if precision is None else precision.value,
        size=shape,
        batch=batch,
        dynamic=dynamic,
        takes=input_.value,
        gives=output.value,
        calibration=[] if calib is None else pictures_in(calib, limit=CALIBRATION_PICTURES),
        pictures=[] if pictures is None else pictures_in(pictures, limit=8),
        gate=passing,
    )
    loaded = load_network(model)
    if settings.precision == "int8" and passing is None and not as_json:
        print("int8 without --gate: nobody has looked what it does to the metric")
    made = []
    for name in names:
        artefact = export_one(loaded, name, out / name, settings)
        made.append(_record(artefact))
        if not as_json:
            print(_line(artefact))
    if as_json:
        print(json.dumps({"model": model, "artefacts": made}, indent=1))


def _gate(
    text: str | None, data: Path | None, dataset: str | None, split: str, limit: int | None
) -> Gate | None:
    if text is None:
        if data is not None or dataset is not None:
            raise UserError("--gate-data and --gate-dataset need --gate METRIC=POINTS; add it")
        return None
    if data is None or dataset is None:
        raise UserError("--gate needs --gate-data DIR and --gate-dataset NAME; add them")

    from espnetv2.deploy.gate import Gate, Judge, parse_gate

    metric, points = parse_gate(text)
    return Gate(metric, points, Judge(dataset, data, split, limit))


def _record(artefact: Artefact) -> dict[str, Any]:
    from espnetv2.deploy.artefact import to_json

    return {**to_json(artefact), "folder": str(artefact.folder)}


def _line(artefact: Artefact) -> str:
    what = f"{artefact.path}: {artefact.precision}, {artefact.bytes / 1e6:.2f} MB"
    if artefact.difference is None:
        return f"{what}; not compared: {artefact.verified}"
    seen = f"differs by {artefact.difference:.1e} at most ({artefact.verified})"
    agreed = f"{artefact.agreement:.4%} equal decisions"
    if artefact.gate is None:
        return f"{what}; {seen}, {agreed}"
    gate = artefact.gate
    held = f"{gate['metric']} {gate['before']:.2f} -> {gate['after']:.2f}"
    kept = f", {len(artefact.float_layers)} layers in float" if artefact.float_layers else ""
    return f"{what}; {seen}, {agreed}; {held}{kept}"
