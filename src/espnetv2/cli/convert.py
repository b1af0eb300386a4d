"""`espnetv2 convert`: official checkpoints to ours and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from espnetv2.errors import UserError


def convert(
    source: Annotated[
        Path, typer.Argument(help="Official .pth of ESPNet, ESPNetv2 or EdgeNets, or .safetensors.")
    ],
    target: Annotated[Path, typer.Argument(help=".safetensors to write; .pth for the way back.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Convert an official checkpoint to safetensors, or one of ours to the official names.

    Network, width, classes and preprocessing are recognised from the file's own keys and shapes;
    nothing in the file is executed. The training resolution, which no tensor tells, is taken from
    a file name with <width>x<height>.
    """
    from espnetv2.weights.convert import to_official_file, to_safetensors

    pair = (source.suffix, target.suffix)
    if target.suffix == ".safetensors" and source.suffix != ".safetensors":
        header = to_safetensors(source, target)
    elif pair == (".safetensors", ".pth"):
        header = to_official_file(source, target)
    else:
        raise UserError(
            f"cannot convert {source.suffix or 'a file'} to {target.suffix or 'a file'}; expected "
            "official.pth out.safetensors, or ours.safetensors out.pth"
        )
    size = header.preprocessing["size"]
    about = {
        "model": header.model,
        "options": header.options,
        "classes": len(header.classes),
        "input_size": size,
        "wrote": str(target),
    }
    if as_json:
        print(json.dumps(about))
    else:
        sized = "own size of the picture" if size is None else f"{size[0]}x{size[1]}"
        print(f"{header.model}, {len(header.classes)} classes, {sized}: wrote {target}")
