"""OpenVINO: an IR of two files for Intel's and other CPUs, and Intel's GPUs and NPUs."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import openvino
import torch
from openvino import opset13 as ops
from openvino.frontend.pytorch import ConversionExtension
from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder
from torch import nn
from torch.export import Dim, ExportedProgram

from espnetv2.deploy.artefact import Port, Side
from espnetv2.deploy.conversion import Converted, Job
from espnetv2.deploy.forms_onnx import for_onnx
from espnetv2.deploy.language_step import batch_axis
from espnetv2.deploy.openvino_graph import tidy
from espnetv2.deploy.sensitivity import worst_first
from espnetv2.errors import UserError

FILES = ("model.xml", "model.bin")
_NOISY = ("root", "nncf")
_PICTURE = ("batch", "channels", "height", "width")
_KINDS = (
    "Convolution",
    "GroupConvolution",
    "ConvolutionBackpropData",
    "GroupConvolutionBackpropData",
    "MatMul",
)
_TRUNK = {"Add", "AvgPool", "Concat", "Interpolate", "Multiply", "PRelu", "ReduceMean", "Relu"}
_TRUNK |= {"Sigmoid", "Subtract"}
"""What lies between the layers, and stays in float: rounded too, more pixels of the shipped CamVid
segmenter change their class."""
OUTSIDE = 1e-4
"""Share of an activation's values beyond either end of its range."""


def convert(job: Job, folder: Path) -> Converted:
    """Write `model.xml` and `model.bin`; see `conversion.Job`.

    bf16 is stored in float32: the engine computes in it where the processor can.
    """
    packages = ["openvino"]
    with silence():
        model = to_model(job)
        if job.precision == "int8":
            model = _quantised(model, job)
            packages.append("nncf")
        path = folder / FILES[0]
        openvino.save_model(model, path, compress_to_fp16=job.precision == "fp16")
    return Converted(
        files=FILES,
        inputs=_ports(job.input_names, model.inputs, known=_PICTURE),
        outputs=_ports(job.output_names, model.outputs, known=_PICTURE[:1]),
        versions={name: version(name) for name in packages},
    )


def rank_layers(job: Job, folder: Path) -> list[str]:
    """Layers that int8 hurts most, worst first; see `conversion.Job`."""
    return worst_first(_form(job), job.calibration)


def to_model(job: Job) -> openvino.Model:
    """The graph of a job in float32; its layers are named after the network's modules."""
    decoder = TorchFXPythonDecoder.from_exported_program(_trace(_form(job), job))
    shapes = None if job.dynamic else [list(one.shape) for one in job.inputs]
    # a tracer's maximum of two sizes is no operator of torch, so the frontend has no rule for it
    larger = ConversionExtension(str(torch.sym_max), _larger)
    model = openvino.convert_model(decoder, input=shapes, extension=[larger])
    for ports, names in ((model.inputs, job.input_names), (model.outputs, job.output_names)):
        for port, name in zip(ports, names, strict=True):
            port.get_tensor().set_names({name})
    _name_layers(model, decoder)
    tidy(model)
    return model


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Nothing of what OpenVINO and NNCF print, log or warn of: their notes are for their makers."""
    loggers = [logging.getLogger(name) for name in _NOISY]
    before = [logger.level for logger in loggers]
    text = io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(text),
        contextlib.redirect_stderr(text),
    ):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)


def _form(job: Job) -> nn.Module:
    """What is fast in ONNX Runtime is fast here too, but for PReLUs; half is for storage alone.

    OpenVINO computes a PReLU within the convolution before it.
    """
    precision = "bf16" if job.precision == "fp16" else job.precision
    prelu = precision != "int8"
    return for_onnx(job.network, job.inputs, precision=precision, prelu=prelu).eval()


def _trace(network: nn.Module, job: Job) -> ExportedProgram:
    free = None
    if job.dynamic:
        free = tuple(
            dict.fromkeys((0, 2, 3) if one.dim() == 4 else (batch_axis(name),), Dim.AUTO)
            for name, one in zip(job.input_names, job.inputs, strict=True)
        )
    with torch.inference_mode():
        shapes = None if free is None else (free,)
        program = torch.export.export(_Flat(network).eval(), job.inputs, dynamic_shapes=shapes)
    sizes = [node.meta["val"].shape for node in program.graph.nodes if node.op == "placeholder"]
    for own, shape in zip(free or (), sizes[-len(job.inputs) :], strict=False):
        if any(isinstance(shape[axis], int) for axis in own):
            raise UserError("this network cannot be traced with free sizes; give --size HxW")
    return program


class _Flat(nn.Module):
    """Takes any number of inputs, so that free sides are stated in one way for all networks."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.network(*inputs)


def _larger(node: Any) -> Any:
    return ops.maximum(node.get_input(0), node.get_input(1)).outputs()


def _name_layers(model: openvino.Model, decoder: Any) -> None:
    """Call convolutions and linear maps by their modules, for `float_layers` and for readers."""
    modules = {}
    for node in decoder.pt_module.graph.nodes:
        stack = list((node.meta.get("nn_module_stack") or {"": ("", None)}).values())
        modules[node.name] = stack[-1][0].removeprefix("network").removeprefix(".")
    taken = set()
    for operation in model.get_ordered_ops():
        if operation.get_type_name() in _KINDS:
            name = modules.get(operation.get_friendly_name().split("/")[0])
            if name and name not in taken:
                operation.set_friendly_name(name)
                taken.add(name)


def _quantised(model: openvino.Model, job: Job) -> openvino.Model:
    """Layers alone: weights per output channel, activations per tensor; biases corrected."""
    import nncf
    from nncf.quantization import advanced_parameters, range_estimator

    parts = job.network.named_modules()
    linear = tuple(name for name, part in parts if isinstance(part, nn.Linear))
    left = []
    for operation in model.get_ops():
        name, kind = operation.get_friendly_name(), operation.get_type_name()
        trunk = kind in _TRUNK or (kind == "MatMul" and not _is_one_of(name, linear))
        if trunk or _is_one_of(name, job.float_layers):
            left.append(name)
    rare = range_estimator.StatisticsCollectorParameters(
        range_estimator.StatisticsType.QUANTILE,
        range_estimator.AggregatorType.MEAN,
        quantile_outlier_prob=OUTSIDE,
    )
    return nncf.quantize(
        model,
        nncf.Dataset(list(job.calibration)),
        subset_size=len(job.calibration),
        preset=nncf.QuantizationPreset.MIXED,
        ignored_scope=nncf.IgnoredScope(names=left),
        advanced_parameters=advanced_parameters.AdvancedQuantizationParameters(
            # one range a tensor: given one a channel of a depth-wise convolution, OpenVINO computes
            # something else than its own graph says (6.7 in 100 pixels of CamVid, instead of 1.2,
            # changed their class)
            activations_quantization_params=advanced_parameters.QuantizationParameters(
                per_channel=False
            ),
            activations_range_estimator_params=range_estimator.RangeEstimatorParameters(rare, rare),
        ),
    )


def _is_one_of(layer: str, layers: tuple[str, ...]) -> bool:
    """Whether a layer is named, by its path in this network or in one around or inside of it."""
    return any(f".{layer}".endswith(f".{one}") or f".{one}".endswith(f".{layer}") for one in layers)


def _ports(names: Sequence[str], ports: Any, *, known: Sequence[str]) -> tuple[Port, ...]:
    """The graph's, in order; `known` are the names of free sides, beyond which they are "any"."""
    found = []
    for name, port in zip(names, ports, strict=True):
        shape = port.get_partial_shape()
        own = known if len(shape) == len(_PICTURE) or not batch_axis(name) else ("any", "batch")
        sides: list[Side] = [
            side.get_length() if side.is_static else (*own, *["any"] * len(shape))[axis]
            for axis, side in enumerate(shape)
        ]
        found.append(Port(name, tuple(sides), port.get_element_type().to_dtype().name))
    return tuple(found)
