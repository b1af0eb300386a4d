"""What a converter is given and what it gives back; one module `to_*.py` a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor, nn

from espnetv2.deploy.artefact import Port


@dataclass(frozen=True)
class Job:
    """A network to convert.

    A target's module has `convert(job, folder) -> Converted`, which writes files into an empty
    folder, and, if it offers int8, `rank_layers(job, folder) -> list[str]`: the layers that int8
    hurts most, worst first, by the names that `float_layers` takes.

    Attributes:
        network: In the deploy form that suits the target, in eval mode, fp32.
        inputs: Examples; images first (B, 3, H, W).
        input_names: One an input.
        output_names: One an output.
        dynamic: Whether batch, height and width of images are free (words and batch of texts).
        precision: To compute in.
        calibration: For int8: inputs as the network takes them, each (1, 3, H, W).
        float_layers: That int8 leaves in float.
        notes: Short texts, by name, for formats that have room for them.
    """

    network: nn.Module
    inputs: tuple[Tensor, ...]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    dynamic: bool = False
    precision: str = "fp32"
    calibration: Sequence[np.ndarray] = ()
    float_layers: tuple[str, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Converted:
    """What lies in the folder now.

    Attributes:
        files: Names; the first is the one to load.
        inputs: As the runtime knows them, in the job's order.
        outputs: The same.
        versions: Of the packages that took part.
        opset: Of ONNX.
    """

    files: tuple[str, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    versions: dict[str, str] = field(default_factory=dict)
    opset: int | None = None
