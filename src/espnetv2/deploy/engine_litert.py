"""LiteRT as an engine: XNNPACK on the CPU, by the Python runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from espnetv2.deploy.artefact import Artefact
from espnetv2.deploy.engines import Engine
from espnetv2.deploy.quiet import quiet
from espnetv2.errors import UserError


class LiteRtEngine(Engine):
    """A .tflite file.

    Args:
        artefact: Of the target "litert".
        threads: Of one operation; operations run one after another.

    Attributes:
        precision: fp16 is how weights are stored; on this CPU they are computed with in float32.

    Raises:
        UserError: The file is damaged.
    """

    name = "litert"

    def __init__(self, artefact: Artefact, *, threads: int) -> None:
        self.artefact, self.threads = artefact, threads
        self.precision = "fp32" if artefact.precision == "fp16" else artefact.precision
        try:
            with quiet(native=True):  # C++ tells that it has found XNNPACK
                self._interpreter = Interpreter(model_path=str(artefact.path), num_threads=threads)
                self._interpreter.allocate_tensors()
            inputs, outputs = (
                {one["name"]: one for one in found}
                for found in (
                    self._interpreter.get_input_details(),
                    self._interpreter.get_output_details(),
                )
            )
            self._inputs: list[Any] = [inputs[port.name] for port in artefact.inputs]
            self._outputs: list[int] = [outputs[port.name]["index"] for port in artefact.outputs]
        except (ValueError, RuntimeError, KeyError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"{artefact.path}: LiteRT cannot read it ({reason}); export again"
            ) from error

    def run(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """See the base class."""
        for place, one in zip(self._inputs, inputs, strict=True):
            self._interpreter.set_tensor(place["index"], one.astype(place["dtype"], copy=False))
        self._interpreter.invoke()
        return tuple(self._interpreter.get_tensor(index) for index in self._outputs)
