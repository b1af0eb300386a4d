"""ONNX Runtime on the CPU."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnxruntime

from espnetv2.deploy.artefact import Artefact, Port
from espnetv2.deploy.engines import Engine
from espnetv2.errors import UserError

_SPIN_MICROSECONDS = "50"
"""That a thread waits awake for the next operation: as long as those that run alone take. The
runtime's own many milliseconds made the median of a busy machine 2 times slower."""
_QUIET = 3  # errors only
_ANY_SIDE = 64
_HEAVY = ("Conv", "Gemm")
_KINDS = {"float": "fp32", "float16": "fp16", "uint8": "int8", "int8": "int8"}


class OnnxRuntimeEngine(Engine):
    """ONNX Runtime's CPU provider with all of its graph optimisations.

    It computes what the graph says, except for types that it has no kernels of on the processor:
    half is then computed in float32, which `precision` says.

    Args:
        artefact: Of the target "onnx".
        threads: Of one operation; operations run one after another.

    Raises:
        UserError: The file is damaged.
    """

    name = "onnxruntime"

    def __init__(self, artefact: Artefact, *, threads: int) -> None:
        self.artefact, self.threads = artefact, threads
        self.precision = artefact.precision
        self._session = self._open(_options(threads))
        self._inputs = [one.name for one in artefact.inputs]
        self._outputs = [one.name for one in artefact.outputs]
        if artefact.precision != "fp32":
            self.precision = self._measured_precision()

    def run(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """See the base class."""
        given = dict(zip(self._inputs, inputs, strict=True))
        return tuple(self._session.run(self._outputs, given))

    def _open(self, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
        assert self.artefact is not None
        try:
            return onnxruntime.InferenceSession(
                str(self.artefact.path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the runtime's errors have no common base
            raise UserError(
                f"{self.artefact.path}: ONNX Runtime cannot read it "
                f"({str(error).splitlines()[0]}); export again"
            ) from error

    def _measured_precision(self) -> str:
        """What most of the convolutions and products were computed in, as its profiler says."""
        assert self.artefact is not None
        with tempfile.TemporaryDirectory() as place:
            options = _options(self.threads)
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(place) / "profile")
            session = self._open(options)
            session.run(None, {one.name: _zeros(one) for one in self.artefact.inputs})
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        kinds = Counter(
            next(iter(event["args"]["input_type_shape"][0]))
            for event in events
            if any(word in event.get("args", {}).get("op_name", "") for word in _HEAVY)
            and event["args"].get("input_type_shape")
        )
        found = kinds.most_common(1)
        return _KINDS.get(found[0][0], self.precision) if found else self.precision


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _QUIET
    options.add_session_config_entry("session.intra_op.spin_duration_us", _SPIN_MICROSECONDS)
    return options


def _zeros(port: Port) -> np.ndarray:
    shape = [side if isinstance(side, int) else _ANY_SIDE for side in port.shape]
    return np.zeros(shape, dtype=port.dtype)
