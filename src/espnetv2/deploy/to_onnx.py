"""ONNX: one self-contained file for ONNX Runtime, TensorRT and whatever else reads it."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import helper
from torch import Tensor, nn

from espnetv2.deploy.artefact import Port
from espnetv2.deploy.conversion import Converted, Job
from espnetv2.deploy.forms_onnx import for_onnx
from espnetv2.deploy.language_step import batch_axis
from espnetv2.deploy.onnx_graph import sides, tidy
from espnetv2.deploy.quiet import quiet
from espnetv2.deploy.sensitivity import worst_first

FILE = "model.onnx"
OPSET = 18
"""The exporter's own; ONNX Runtime 1.14 and TensorRT 8.6 already read it."""
SMALLEST_SIDE = 32
_ROOMY = (320, 448)
_NOISY = ("torch.onnx", "onnxscript", "onnx_ir", "root")


def convert(job: Job, folder: Path) -> Converted:
    """Write `model.onnx`; see `conversion.Job`."""
    model = to_model(job)
    packages = ["onnx", "onnxscript"]
    if job.precision == "int8":
        from espnetv2.deploy.onnx_int8 import quantized

        with quiet(*_NOISY):
            model = quantized(model, job)
        packages.append("onnxruntime")
    model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, folder / FILE)
    return Converted(
        files=(FILE,),
        inputs=tuple(_port(one) for one in model.graph.input),
        outputs=tuple(_port(one) for one in model.graph.output),
        versions={name: version(name) for name in packages},
        opset=OPSET,
    )


def rank_layers(job: Job, folder: Path) -> list[str]:
    """Layers that int8 hurts most, worst first; see `conversion.Job`."""
    network = for_onnx(job.network, job.inputs, precision="int8")
    return worst_first(network, job.calibration)


def to_model(job: Job) -> onnx.ModelProto:
    """The graph of a job, before quantisation."""
    inputs = tuple(map(_roomy, job.inputs)) if job.dynamic else job.inputs
    network = for_onnx(job.network, inputs, precision=job.precision)
    with quiet(*_NOISY):
        program = torch.onnx.export(
            _Flat(network).eval(),
            inputs,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(job.input_names),
            output_names=list(job.output_names),
            dynamic_shapes=(_free_sides(job),) if job.dynamic else None,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    modules = {f"network.{name}": name for name, _ in network.named_modules()}
    plain = network is job.network  # a train form, to compare with
    return tidy(program.model_proto, job.notes, modules, rewrite=not plain)


class _Flat(nn.Module):
    """Takes any number of inputs, so that free sides are stated in one way for all networks."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Any:
        return self.network(*inputs)


def _roomy(example: Tensor) -> Tensor:
    """An example for tracing in which no side of any map is 1, which a tracer takes for a fact."""
    return example if example.dim() != 4 else example.new_zeros(2, example.shape[1], *_ROOMY)


def _free_sides(job: Job) -> tuple[dict[int, Any], ...]:
    batch = torch.export.Dim("batch")
    height, width = (torch.export.Dim(name, min=SMALLEST_SIDE) for name in ("height", "width"))
    return tuple(
        {0: batch, 2: height, 3: width} if one.dim() == 4 else {batch_axis(name): batch}
        for name, one in zip(job.input_names, job.inputs, strict=True)
    )


def _port(value: onnx.ValueInfoProto) -> Port:
    kind = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    return Port(value.name, tuple(sides(value)), str(kind))
