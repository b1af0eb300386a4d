"""OpenVINO on the CPU."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import openvino

from espnetv2.deploy.artefact import Artefact
from espnetv2.deploy.engines import Engine
from espnetv2.errors import UserError

_ASKED = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "f32"}
_NAMES = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "u8": "int8", "i8": "int8"}
_NEEDS = {"fp16": "FP16", "bf16": "BF16"}
_HEAVY = {"Convolution", "Deconvolution", "FullyConnected", "MatMul"}


class OpenVinoEngine(Engine):
    """OpenVINO's CPU plugin, asked for latency: one stream of `threads` threads.

    Left alone it computes in bf16 on processors that can, even what is stored in float32, so the
    precision is always asked for. Where the processor lacks the artefact's type, OpenVINO computes
    in float32, which `precision` says.

    Args:
        artefact: Of the target "openvino".
        threads: Of one operation; operations run one after another.

    Raises:
        UserError: The files are damaged.
    """

    name = "openvino"

    def __init__(self, artefact: Artefact, *, threads: int) -> None:
        self.artefact, self.threads = artefact, threads
        core = openvino.Core()
        try:
            self._compiled = core.compile_model(
                core.read_model(artefact.path),
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": _hint(core, artefact.precision),
                    "INFERENCE_NUM_THREADS": threads,
                    "PERFORMANCE_HINT": "LATENCY",
                    "NUM_STREAMS": 1,
                },
            )
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise UserError(
                f"{artefact.path}: OpenVINO cannot read it ({reason}); export again"
            ) from error
        self.precision = _computed_in(self._compiled)
        self._request = self._compiled.create_infer_request()

    def run(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """See the base class."""
        given = [np.ascontiguousarray(one) for one in inputs]
        results = self._request.infer(given, share_inputs=True)
        return tuple(results[port] for port in self._compiled.outputs)


def _hint(core: openvino.Core, precision: str) -> str:
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return _ASKED[precision if _NEEDS.get(precision, "FP32") in able else "fp32"]


def _computed_in(compiled: Any) -> str:
    """What most of the convolutions and products compute in, as the kernels' names end.

    "runtimePrecision" is that of stored weights too, which may be widened before they are used.
    """
    kinds: Counter[str] = Counter()
    for operation in compiled.get_runtime_model().get_ops():
        notes = operation.get_rt_info()
        if "layerType" in notes and notes["layerType"].astype(str) in _HEAVY:
            kinds[notes["primitiveType"].astype(str).rpartition("_")[2].lower()] += 1
    hint = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    most = kinds.most_common(1)[0][0] if kinds else hint
    return _NAMES.get(most, most)
