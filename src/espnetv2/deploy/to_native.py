"""The native engine's model file: safetensors of the deploy form, its program in the header."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import nn

from espnetv2.deploy.artefact import Port, Side
from espnetv2.deploy.conversion import Converted, Job
from espnetv2.deploy.native_int8 import ranges, rank
from espnetv2.deploy.native_program import undecoded, write
from espnetv2.deploy.native_steps import FORMAT
from espnetv2.errors import UserError

FILE = "model.espnetv2"
_PICTURE = ("batch", 3, "height", "width")


def convert(job: Job, folder: Path) -> Converted:
    """Write `model.espnetv2`, which takes every size; see `deploy.conversion.Job`."""
    import espnetv2_native

    content = content_of(
        job.network,
        precision=job.precision,
        notes=dict(job.notes),
        calibration=job.calibration,
        float_layers=job.float_layers,
    )
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


def rank_layers(job: Job, folder: Path) -> list[str]:
    """Layers that int8 hurts most, worst first; see `deploy.conversion.Job`."""
    return rank(undecoded(job.network), job.calibration)


def content_of(
    network: nn.Module,
    *,
    precision: str = "fp32",
    notes: dict[str, str],
    calibration: Sequence[np.ndarray] = (),
    float_layers: Sequence[str] = (),
) -> bytes:
    """What the file of a network holds.

    Args:
        network: In the deploy form.
        precision: "fp32", "bf16" or "int8", to compute in.
        notes: Texts for the header.
        calibration: For int8, inputs as the network takes them, each (B, 3, H, W).
        float_layers: That int8 leaves out, by their names in the network without its decoding.

    Raises:
        UserError: It has a part that the engine lacks, or int8 lacks calibration.
    """
    if isinstance(undecoded(network), nn.Sequential):
        raise UserError("the native engine takes pictures prepared already; give --input input")
    known = None
    if precision == "int8":
        known = ranges(undecoded(network), calibration, float_layers=float_layers)
    writer = write(network, known)
    header = {**notes, "format": FORMAT, "precision": precision, "program": writer.program()}
    arrays = writer.arrays
    if precision != "fp32":
        header["largest"] = f"{_largest_value(undecoded(network)):.6g}"
        arrays = {key: one.bfloat16() if _large(one) else one for key, one in arrays.items()}
    content: bytes = save(arrays, {key: str(value) for key, value in header.items()})
    return content


def _largest_value(network: nn.Module) -> float:
    """Of what any layer gives for noise: processors without bfloat16 have halves up to 65504."""
    found = [0.0]

    def look(_layer: nn.Module, _given: object, made: object) -> None:
        if isinstance(made, torch.Tensor):
            found.append(made.abs().max().item())

    layers = list(network.modules())
    hooks = [layer.register_forward_hook(look) for layer in layers]
    channels = next(layer.in_channels for layer in layers if isinstance(layer, nn.Conv2d))
    noise = torch.randn(1, channels, 128, 128, generator=torch.Generator().manual_seed(0))
    try:
        with torch.inference_mode():
            network(noise)
    finally:
        for hook in hooks:
            hook.remove()
    return float(np.max(found))  # no number if one is none


def _large(one: torch.Tensor) -> bool:
    """Whether halves save something: of vectors and depth-wise weights there are few."""
    return one.dim() > 1 and one.shape[1] > 1 and one.dtype == torch.float32


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
