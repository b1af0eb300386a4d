"""The native engine's model file: safetensors of the deploy form, its program in the header."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import numpy as np
from safetensors.torch import save
from torch import nn

from espnetv2.deploy.artefact import Port, Side
from espnetv2.deploy.conversion import Converted, Job
from espnetv2.deploy.native_program import write
from espnetv2.deploy.native_steps import FORMAT
from espnetv2.errors import UserError

FILE = "model.espnetv2"
_PICTURE = ("batch", 3, "height", "width")


def convert(job: Job, folder: Path) -> Converted:
    """Write `model.espnetv2`, which takes every size; see `deploy.conversion.Job`."""
    import espnetv2_native

    content = content_of(job.network, precision=job.precision, notes=dict(job.notes))
    model = espnetv2_native.Model.of(content)
    batch, channels, height, width = job.inputs[0].shape
    outputs = model.open(batch, height, width).run(job.inputs[0].numpy())
    folder.joinpath(FILE).write_bytes(content)
    return Converted(
        files=(FILE,),
        inputs=(Port("image", ("batch", channels, *_PICTURE[2:])),),
        outputs=tuple(map(_port, job.output_names, outputs)),
        versions={"espnetv2-native": version("espnetv2-native")},
    )


def content_of(network: nn.Module, *, precision: str = "fp32", notes: dict[str, str]) -> bytes:
    """What the file of a network holds.

    Args:
        network: In the deploy form.
        precision: "fp32" or "bf16", to compute in.
        notes: Texts for the header.

    Raises:
        UserError: It has a part that the engine lacks.
    """
    if isinstance(network, nn.Sequential):
        raise UserError("the native engine takes pictures prepared already; give --input input")
    writer = write(network)
    header = {**notes, "format": FORMAT, "precision": precision, "program": writer.program()}
    arrays = writer.arrays
    if precision == "bf16":  # of vectors nothing would be saved
        arrays = {key: one.bfloat16() if one.dim() > 1 else one for key, one in arrays.items()}
    content: bytes = save(arrays, {key: str(value) for key, value in header.items()})
    return content


def _port(name: str, values: np.ndarray) -> Port:
    free: list[Side] = ["batch"]
    if values.ndim == 2 or name == "boxes":
        free += values.shape[1:]
    elif values.ndim == 3 and values.dtype == np.uint8:
        free += ["height", "width"]
    elif values.ndim == 3:
        free += ["boxes", values.shape[2]]
    else:
        free += [values.shape[1], "rows", "columns"]
    return Port(name, tuple(free), str(values.dtype))
