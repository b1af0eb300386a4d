"""ncnn on the CPU."""

from __future__ import annotations

import ncnn
import numpy as np

from espnetv2.deploy.artefact import Artefact, Port
from espnetv2.deploy.engines import Engine
from espnetv2.errors import UserError

_HEAVY = {"Convolution", "ConvolutionDepthWise", "Deconvolution", "InnerProduct", "Gemm"}
_HALF = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic")
_OTHER = (
    *("use_bf16_packed", "use_bf16_storage"),
    *("use_int8_packed", "use_int8_storage", "use_int8_arithmetic", "use_int8_inference"),
)


class NcnnEngine(Engine):
    """ncnn's CPU layers.

    Left alone it computes in half wherever a processor can, even what is stored in float32, so
    narrow types are switched off unless the artefact is of one. Where ncnn's layers cannot
    compute in the artefact's type, they do so in float32, which `precision` says.

    Args:
        artefact: Of the target "ncnn".
        threads: Of one operation; operations run one after another.

    Raises:
        UserError: The files are damaged.
    """

    name = "ncnn"

    def __init__(self, artefact: Artefact, *, threads: int) -> None:
        self.artefact, self.threads = artefact, threads
        self._net = ncnn.Net()
        _set(self._net.opt, artefact.precision, threads)
        param, weights = (artefact.folder / name for name in artefact.files)
        if self._net.load_param(str(param)) or self._net.load_model(str(weights)):
            raise UserError(f"{param}: ncnn {_version()} cannot read it; export again")
        expected = ([one.name for one in artefact.inputs], [one.name for one in artefact.outputs])
        if (list(self._net.input_names()), sorted(self._net.output_names())) != (
            expected[0],
            sorted(expected[1]),
        ):
            raise UserError(f"{param} and export.json name other inputs or outputs; export again")
        self.precision = _computed_in(self._net, artefact.precision)

    def run(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """See the base class; the batch is 1."""
        assert self.artefact is not None
        given = [np.ascontiguousarray(one[0], dtype=np.float32) for one in inputs]
        extractor = self._net.create_extractor()
        for port, one in zip(self.artefact.inputs, given, strict=True):
            extractor.input(port.name, ncnn.Mat(one))  # no copy: `given` lives until the end
        return tuple(self._extract(extractor, port) for port in self.artefact.outputs)

    def _extract(self, extractor: ncnn.Extractor, port: Port) -> np.ndarray:
        failed, found = extractor.extract(port.name)
        if failed:
            raise UserError(
                f"ncnn cannot compute {port.name} (code {failed}; too little memory?); give a "
                "smaller --size"
            )
        return np.array(found).reshape([int(side) for side in port.shape])


def _set(options: ncnn.Option, precision: str, threads: int) -> None:
    for name in (*_HALF, *_OTHER):
        if hasattr(options, name):  # older versions have fewer
            setattr(options, name, precision == "fp16" and name in _HALF)
    options.use_vulkan_compute = False
    options.num_threads = threads


def _computed_in(net: ncnn.Net, precision: str) -> str:
    """What most of the convolutions and products compute in, as the loaded layers say."""
    heavy = [layer for layer in net.layers() if layer.type in _HEAVY]
    able = sum(layer.support_fp16_storage for layer in heavy)
    return "fp16" if precision == "fp16" and 2 * able > len(heavy) else "fp32"


def _version() -> str:
    return str(ncnn.__version__)
