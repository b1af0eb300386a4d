"""A job's network as a graph of torch.export, with plain ports and sides fixed or free."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from espnetv2.deploy.artefact import Port
from espnetv2.deploy.conversion import Job
from espnetv2.deploy.language_step import batch_axis

LARGEST_BATCH, LARGEST_SIDE = 8, 2048
"""Upper bounds of free sizes, which such runtimes want to know to plan their memory."""

_ROOMY = (320, 448)


class Flat(nn.Module):
    """The network with a plain tuple of outputs, computing in float32 or inside in float16.

    Shape: as the network's
    """

    def __init__(self, network: nn.Module, *, half: bool = False) -> None:
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


def layer_of(node: torch.fx.Node) -> str:
    """Path, in what `Flat` was given, of the innermost module that an operation comes from."""
    stack = node.meta.get("nn_module_stack") or {"": ("", None)}
    path: str = list(stack.values())[-1][0]
    return path.removeprefix("network.")


def examples(job: Job) -> tuple[Tensor, ...]:
    """Inputs to trace with.

    Where sizes are free no side of any map may be 1, which a tracer takes for a fact.
    """
    if not job.dynamic:
        return job.inputs
    return tuple(x.new_zeros(2, x.shape[1], *_ROOMY) if x.dim() == 4 else x for x in job.inputs)


def simplify_slices(graph_module: torch.fx.GraphModule) -> None:
    """Drop slices that leave nothing out, and make slices of padding by less than nothing.

    Runtimes refuse such padding, which stands where sides stay free: `layers.conv.crop`. In place.
    """
    graph, aten = graph_module.graph, torch.ops.aten
    for node in list(graph.nodes):
        given: Any = node.args
        if node.target in (aten.slice.Tensor, aten.alias.default):  # the latter leaves nothing out
            before, after = given[0].meta["val"].shape, node.meta["val"].shape
            sides = (*before, *after)
            if all(isinstance(side, int) for side in sides) and tuple(before) == tuple(after):
                node.replace_all_uses_with(given[0])
                graph.erase_node(node)
        if node.target not in (aten.pad.default, aten.constant_pad_nd.default):
            continue
        x, pads, *_ = given
        if any(pads[::2]) or not all(map(_takes_away, pads[1::2])):
            continue
        with graph.inserting_before(node):
            for place, pad in enumerate(pads[1::2]):
                axis = node.meta["val"].dim() - 1 - place
                side = graph.call_function(aten.sym_size.int, (x, axis))
                end = graph.call_function(operator.add, (side, pad))
                x = graph.call_function(aten.slice.Tensor, (x, axis, 0, end))
                x.meta = dict(node.meta)
        node.replace_all_uses_with(x)
        graph.erase_node(node)
    graph_module.recompile()


def _takes_away(pad: int | torch.fx.Node) -> bool:
    """Whether a padding is never positive, and for some sides negative."""
    if isinstance(pad, int):
        return pad < 0
    expression = pad.meta["val"].node.expr
    values = [
        expression.subs(dict.fromkeys(expression.free_symbols, side)) for side in range(129, 146)
    ]
    return bool(max(values) <= 0 and min(values) < 0)


def trace(network: nn.Module, job: Job) -> ExportedProgram:
    """Trace a `Flat`, or a graph that was made of one."""
    shapes: Any = None
    inputs = examples(job)
    if job.dynamic:
        shapes = tuple(map(_free_sides, job.input_names, inputs))
        shapes = (shapes,) if isinstance(network, Flat) else shapes  # one argument, a tuple
    with torch.no_grad():
        network(*inputs)  # some forms learn sizes from their first call
        return torch.export.export(network, inputs, dynamic_shapes=shapes, strict=False)


def ports(program: ExportedProgram, job: Job) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """Inputs and outputs of a traced network, free sides by name."""
    inputs = given(program)
    results = [node.meta["val"] for node in program.graph.output_node().args[0]]
    names: dict[str, str] = {}
    for name, x in zip(job.input_names, inputs, strict=True):
        own = {0: "batch", 2: "height", 3: "width"} if x.dim() == 4 else {batch_axis(name): "batch"}
        names |= {str(x.shape[axis]): side for axis, side in own.items()}

    def port(name: str, x: Tensor) -> Port:
        shape = [
            side if isinstance(side, int) else names.get(str(side), f"{name}_{axis}")
            for axis, side in enumerate(x.shape)
        ]
        return Port(name, tuple(shape), str(x.dtype).removeprefix("torch."))

    return (
        tuple(map(port, job.input_names, inputs)),
        tuple(map(port, job.output_names, results)),
    )


def smallest_side(program: ExportedProgram) -> int:
    """Of pictures: a graph with free sizes may hold from some size on alone."""
    ranges = program.range_constraints
    sides: list[Any] = [side for x in given(program)[:1] if x.dim() == 4 for side in x.shape[2:]]
    names = [side.node.expr for side in sides if isinstance(side, torch.SymInt)]
    return max([1, *(int(ranges[name].lower) for name in names if name in ranges)])


def given(program: ExportedProgram) -> list[Tensor]:
    """Stand-ins for the inputs, with their shapes."""
    names = program.graph_signature.user_inputs
    return [node.meta["val"] for node in program.graph.nodes if node.name in names]


def _free_sides(name: str, example: Tensor) -> dict[int, Any]:
    """Least sizes are left to the tracer, which finds from where on the graph holds."""
    batch, side = Dim.AUTO(max=LARGEST_BATCH), Dim.AUTO(max=LARGEST_SIDE)
    return {0: batch, 2: side, 3: side} if example.dim() == 4 else {batch_axis(name): batch}
