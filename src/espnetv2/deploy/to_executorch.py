"""ExecuTorch: one .pte file, computed by XNNPACK on the CPUs of phones and small boards."""

from __future__ import annotations

from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim

from espnetv2.deploy.artefact import Port
from espnetv2.deploy.conversion import Converted, Job
from espnetv2.deploy.forms_xnnpack import for_xnnpack, rewrite
from espnetv2.deploy.language_step import batch_axis
from espnetv2.deploy.quiet import quiet
from espnetv2.deploy.sensitivity import worst_first

FILE = "model.pte"
LARGEST_BATCH, LARGEST_SIDE = 8, 2048
"""Upper bounds of free sizes: ExecuTorch plans its memory for the largest ones."""

_ROOMY = (320, 448)
_NOISY = ("torch.utils._pytree", "torchao", "executorch", "root")


def convert(job: Job, folder: Path) -> Converted:
    """Write `model.pte`; see `deploy.conversion.Job`."""
    with quiet(*_NOISY):
        program = prepare(job)
        manager = lower(program, dynamic=job.dynamic)
        folder.joinpath(FILE).write_bytes(manager.to_executorch().buffer)
    inputs, outputs = ports(program, job)
    return Converted(
        files=(FILE,),
        inputs=inputs,
        outputs=outputs,
        versions={name: version(name) for name in ("executorch", "torchao")},
    )


def rank_layers(job: Job, folder: Path) -> list[str]:
    """The layers that int8 hurts most, worst first."""
    return worst_first(for_xnnpack(job.network), job.calibration)


def prepare(job: Job) -> torch.export.ExportedProgram:
    """The traced network, in forms that XNNPACK has and in the job's precision."""
    network = Flat(for_xnnpack(job.network), half=job.precision == "fp16").eval()
    inputs = tuple(map(_example, job.inputs)) if job.dynamic else job.inputs
    with torch.no_grad():
        network(*inputs)  # see for_xnnpack
        graph_module = _trace(network, inputs, job).module()
        rewrite(graph_module)
        if job.precision == "int8":
            graph_module = _quantise(graph_module, job)
        return _trace(graph_module, inputs, job)


def lower(program: torch.export.ExportedProgram, *, dynamic: bool) -> Any:
    """ExecuTorch's edge program, with all that XNNPACK can do handed to it."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower

    return to_edge_transform_and_lower(
        program,
        partitioner=[XnnpackPartitioner()],
        constant_methods={"smallest_side": _smallest_side(program)} if dynamic else None,
        compile_config=EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=True),
    )


def left_over(manager: Any) -> Counter[str]:
    """Operators that XNNPACK does not compute, by name; "delegate" counts its pieces."""
    found: Counter[str] = Counter()
    for node in manager.exported_program().graph.nodes:
        if node.op == "call_function":
            name = getattr(node.target, "__name__", str(node.target))
            if "delegate" in name:
                name = "delegate"
            if name != "getitem":
                found[name] += 1
    return found


class Flat(nn.Module):
    """The network with a plain tuple of outputs, computing in float32 or inside in float16.

    Shape: as the network's
    """

    def __init__(self, network: nn.Module, *, half: bool) -> None:
        super().__init__()
        self.half_inside = half
        self.network = network.half() if half else network

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        if self.half_inside:
            inputs = tuple(x.half() if x.is_floating_point() else x for x in inputs)
        outputs = self.network(*inputs)
        parts = (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
        return tuple(x.float() if x.dtype == torch.float16 else x for x in parts)


def _example(x: Tensor) -> Tensor:
    """To trace free sizes with: no side of any map is 1, which a tracer takes for a fact."""
    return x if x.dim() != 4 else x.new_zeros(2, x.shape[1], *_ROOMY)


def _trace(
    network: nn.Module, inputs: tuple[Tensor, ...], job: Job
) -> torch.export.ExportedProgram:
    shapes: Any = None
    if job.dynamic:
        shapes = tuple(map(_free_sides, job.input_names, inputs))
        shapes = (shapes,) if isinstance(network, Flat) else shapes  # one argument, a tuple
    return torch.export.export(network, inputs, dynamic_shapes=shapes, strict=False)


def _free_sides(name: str, example: Tensor) -> dict[int, Any]:
    """Least sizes are left to the tracer, which finds from where on the graph holds."""
    batch, side = Dim.AUTO(max=LARGEST_BATCH), Dim.AUTO(max=LARGEST_SIDE)
    return {0: batch, 2: side, 3: side} if example.dim() == 4 else {batch_axis(name): batch}


def _smallest_side(program: torch.export.ExportedProgram) -> int:
    """Of pictures: the traced graph may hold for sides from some size on alone."""
    ranges = program.range_constraints
    sides = [side for x in _given(program)[:1] for side in x.shape[2:]]
    names = [side.node.expr for side in sides if isinstance(side, torch.SymInt)]
    return max([1, *(int(ranges[name].lower) for name in names if name in ranges)])


def _given(program: torch.export.ExportedProgram) -> list[Tensor]:
    names = program.graph_signature.user_inputs
    return [node.meta["val"] for node in program.graph.nodes if node.name in names]


def _quantise(graph_module: fx.GraphModule, job: Job) -> fx.GraphModule:
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    left = set(job.float_layers)
    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config())
    quantizer.set_filter_function(lambda node: layer_of(node) not in left)
    prepared = prepare_pt2e(graph_module, quantizer)
    for image in job.calibration:
        prepared(torch.from_numpy(image))
    return convert_pt2e(prepared)


def layer_of(node: fx.Node) -> str:
    """Path of the innermost module that an operation comes from."""
    stack = node.meta.get("nn_module_stack") or {"": ("", None)}
    return list(stack.values())[-1][0].removeprefix("network.")


def ports(
    program: torch.export.ExportedProgram, job: Job
) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """Inputs and outputs of a traced network, free sides by name."""
    given = _given(program)
    results = [node.meta["val"] for node in program.graph.output_node().args[0]]
    names: dict[str, str] = {}
    for name, x in zip(job.input_names, given, strict=True):
        own = {0: "batch", 2: "height", 3: "width"} if x.dim() == 4 else {batch_axis(name): "batch"}
        names |= {str(x.shape[axis]): side for axis, side in own.items()}

    def port(name: str, x: Tensor) -> Port:
        shape = [
            side if isinstance(side, int) else names.get(str(side), f"{name}_{axis}")
            for axis, side in enumerate(x.shape)
        ]
        return Port(name, tuple(shape), str(x.dtype).removeprefix("torch."))

    return (
        tuple(map(port, job.input_names, given)),
        tuple(map(port, job.output_names, results)),
    )
