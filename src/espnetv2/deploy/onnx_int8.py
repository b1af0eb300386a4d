"""Static quantisation of an ONNX graph by ONNX Runtime's own tool, and which layers it hurts."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import create_calibrator
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from torch import Tensor, nn

from espnetv2.deploy.conversion import Job
from espnetv2.deploy.forms_onnx import for_onnx
from espnetv2.deploy.onnx_graph import layers
from espnetv2.errors import UserError

KINDS = ["Conv", "ConvTranspose", "Gemm"]
"""Operators that are worth computing in int8; everything between them stays in float."""
PERCENTILE = 99.99
"""Of the values of an activation, inside its range. The shipped CamVid segmenter loses 0.9 points
of mIoU with it, 1.4 with 99.999 and 1.6 with the whole range."""
RANKED_ON = 2
"""Calibration inputs that layers are ranked on."""


class Pictures(CalibrationDataReader):  # type: ignore[misc]
    """Calibration inputs one by one, as ONNX Runtime asks for them."""

    def __init__(self, name: str, inputs: Sequence[np.ndarray]) -> None:
        self._left: Iterator[np.ndarray] = iter(inputs)
        self._name = name

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next inputs by name; None at the end."""
        one = next(self._left, None)
        return None if one is None else {self._name: one}


def quantized(model: onnx.ModelProto, job: Job) -> onnx.ModelProto:
    """The graph with weights per channel and activations per tensor in 8 bits (QDQ form).

    Raises:
        UserError: There are no calibration inputs, or a layer to leave in float does not exist.
    """
    if not job.calibration:
        raise UserError("int8 needs pictures like the device's to find its ranges; give --calib")
    missing = set(job.float_layers) - set(layers(model.graph))
    if missing:
        raise UserError(f"no such layers to leave in float: {', '.join(sorted(missing))}")
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "float.onnx"
        onnx.save(model, file)
        calibrator = create_calibrator(
            file,
            KINDS,
            str(Path(place) / "seen.onnx"),
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={"percentile": PERCENTILE, "symmetric": False},
        )
        for one in job.calibration:  # one by one: the tool keeps what it has not counted yet
            calibrator.collect_data(Pictures(job.input_names[0], [one]))
        ranges = calibrator.compute_data()
        del calibrator
    quantizer = QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=ranges,
        nodes_to_quantize=[name for name in layers(model.graph) if name not in job.float_layers],
        nodes_to_exclude=[],
        op_types_to_quantize=KINDS,
        extra_options={},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()  # it appends what it adds
    done: onnx.ModelProto = quantizer.model.model
    return done


def rank(job: Job) -> list[str]:
    """Layers by what 8 bits in that layer alone do to the network's first output, worst first.

    The arithmetic is the tool's: weights per output channel, what goes in and out per tensor, all
    within the ranges seen. One layer at a time, since errors pile up along the network and would
    blame the last ones for the mistakes of the first.
    """
    network = for_onnx(job.network, job.inputs, precision="int8")
    inputs = [torch.from_numpy(one) for one in job.calibration[:RANKED_ON]]
    modules = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
    }
    with torch.inference_mode():
        truths = [_first(network(one)) for one in inputs]
        harm = {}
        for name, module in modules.items():
            pair = zip(inputs, truths, strict=True)
            with _in_8_bits(module):
                harm[name] = sum(float((_first(network(x)) - y).square().mean()) for x, y in pair)
    return sorted(harm, key=lambda name: -harm[name])


@contextlib.contextmanager
def _in_8_bits(module: nn.Conv2d | nn.ConvTranspose2d | nn.Linear) -> Iterator[None]:
    before = module.weight
    axis = 1 if isinstance(module, nn.ConvTranspose2d) else 0
    others = [one for one in range(before.dim()) if one != axis]
    step = before.abs().amax(dim=others, keepdim=True).clamp_min(1e-12) / 127
    module.weight = nn.Parameter((before / step).round() * step, requires_grad=False)
    hooks = [
        module.register_forward_pre_hook(lambda _, given: (_rounded(given[0]),)),
        module.register_forward_hook(lambda *arguments: _rounded(arguments[-1])),
    ]
    try:
        yield
    finally:
        module.weight = before
        for hook in hooks:
            hook.remove()


def _rounded(x: Tensor) -> Tensor:
    low, high = x.amin().clamp_max(0), x.amax().clamp_min(0)
    step = ((high - low) / 255).clamp_min(1e-12)
    return ((x - low) / step).round() * step + low


def _first(outputs: Tensor | tuple[Tensor, ...]) -> Tensor:
    return (outputs if isinstance(outputs, Tensor) else outputs[0]).float()
