"""LiteRT's file as objects: read, written, its ports named, its PReLUs put together again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from espnetv2.deploy.artefact import Port

IDENTIFIER = b"TFL3"
_KINDS = {
    schema.TensorType.FLOAT32: "float32",
    schema.TensorType.FLOAT16: "float16",
    schema.TensorType.INT32: "int32",
    schema.TensorType.INT64: "int64",
    schema.TensorType.INT8: "int8",
    schema.TensorType.UINT8: "uint8",
    schema.TensorType.BOOL: "bool",
}
_SLOPE_AXES = 3
"""Height, width and channels, as Keras writes slopes; every delegate takes that."""


def read(content: bytes) -> Any:
    """A file as a tree of the schema's objects."""
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))


def write(model: Any) -> bytes:
    """A tree as a file."""
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def kind_of(model: Any, operator: Any) -> int:
    """The number of an operation in `schema.BuiltinOperator`."""
    kind: int = model.operatorCodes[operator.opcodeIndex].builtinCode
    return kind


def kinds(model: Any) -> Counter[str]:
    """How often each operation occurs, by name."""
    names = {
        number: name
        for name, number in vars(schema.BuiltinOperator).items()
        if isinstance(number, int)
    }
    operators = model.subgraphs[0].operators
    return Counter(names[kind_of(model, operator)] for operator in operators)


def name_of(tensor: Any) -> str:
    """A tensor's name."""
    return _text(tensor.name)


def rename(model: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Give the ports names, in the file's only signature and of their tensors.

    The converter numbers them in the order of the network: args_0 and so on, output_0 and so on.
    """
    graph, (signature,) = model.subgraphs[0], model.signatureDefs
    for ports, names in ((signature.inputs, inputs), (signature.outputs, outputs)):
        for port in ports:
            name = names[int(_text(port.name).rpartition("_")[2])]
            port.name = name
            graph.tensors[port.tensorIndex].name = name


def ports(model: Any, names: Sequence[str], places: Sequence[int]) -> tuple[Port, ...]:
    """Ports in the order of their names.

    Args:
        names: As they were given to `rename`.
        places: `inputs` or `outputs` of the graph.
    """
    tensors = [model.subgraphs[0].tensors[place] for place in places]
    found = {name_of(one): one for one in tensors}
    return tuple(
        Port(name, tuple(map(int, found[name].shape)), _KINDS[found[name].type]) for name in names
    )


def join_prelus(model: Any) -> int:
    """Make one PReLU of the four operations that the converter takes it apart into, in place.

    relu(x) - slope relu(-x), which it writes for the sake of GPUs, costs XNNPACK four walks over
    the picture; both have PReLU itself.

    Returns:
        How many there were.
    """
    graph, operators = model.subgraphs[0], _Operators(model)
    found = [parts for one in graph.operators if (parts := operators.prelu(one)) is not None]
    if not found:
        return 0
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.PRELU
    code.version = 1
    model.operatorCodes.append(code)
    gone = set()
    for parts in found:
        tensor = graph.tensors[parts.slope]
        if len(tensor.shape) > _SLOPE_AXES:
            tensor.shape = [int(side) for side in tensor.shape][-_SLOPE_AXES:]
        last = parts.operators[-1]
        last.opcodeIndex = len(model.operatorCodes) - 1
        last.inputs = [parts.x, parts.slope]
        last.builtinOptionsType, last.builtinOptions = 0, None
        gone |= {id(one) for one in parts.operators[:-1]}
    graph.operators = [one for one in graph.operators if id(one) not in gone]
    _drop_unused_tensors(model)
    return len(found)


def _drop_unused_tensors(model: Any) -> None:
    """The quantiser looks at every tensor, also at those that nobody computes any more."""
    graph = model.subgraphs[0]
    lists = [graph, *graph.operators]
    used = {int(place) for one in lists for place in (*one.inputs, *one.outputs)} - {-1}
    moved = {old: new for new, old in enumerate(sorted(used))} | {-1: -1}  # -1: left out
    graph.tensors = [graph.tensors[place] for place in sorted(used)]
    for one in lists:
        one.inputs = [moved[int(place)] for place in one.inputs]
        one.outputs = [moved[int(place)] for place in one.outputs]
    for signature in model.signatureDefs:
        for port in (*signature.inputs, *signature.outputs):
            port.tensorIndex = moved[port.tensorIndex]


@dataclass(frozen=True)
class _Prelu:
    """What a PReLU was taken apart into; `operators` ends with the one that gives the result."""

    x: int
    slope: int
    operators: tuple[Any, ...]


class _Operators:
    """Who makes a tensor, and how often it is read."""

    def __init__(self, model: Any) -> None:
        self._model, self._graph = model, model.subgraphs[0]
        operators = self._graph.operators
        self._made_by = {int(out): one for one in operators for out in one.outputs}
        self._uses = Counter(int(x) for one in operators for x in one.inputs)
        self._uses.update(map(int, self._graph.outputs))

    def prelu(self, last: Any) -> _Prelu | None:
        """sub(relu(x), mul(mul(x, -1) with relu, slope)), of which nobody else reads a part."""
        builtin = schema.BuiltinOperator
        if self._plain(last, builtin.SUB) is None:
            return None
        risen = self._plain(self._maker(last, 0), builtin.RELU)
        scaled = self._plain(self._maker(last, 1), builtin.MUL)
        turned = None if scaled is None else self._maker(scaled, 0)
        if risen is None or turned is None or kind_of(self._model, turned) != builtin.MUL:
            return None
        x, slope = int(risen.inputs[0]), int(scaled.inputs[1])
        fused = turned.builtinOptions.fusedActivationFunction
        same = int(turned.inputs[0]) == x and fused == schema.ActivationFunctionType.RELU
        minus = self._constant(int(turned.inputs[1]))
        if not same or minus is None or not (minus == -1).all() or self._constant(slope) is None:
            return None
        if any(int(side) != 1 for side in self._graph.tensors[slope].shape[:-1]):
            return None  # a slope per channel alone
        return _Prelu(x, slope, (risen, turned, scaled, last))

    def _maker(self, operator: Any, place: int) -> Any:
        """Of an input that nobody else reads."""
        tensor = int(operator.inputs[place])
        return self._made_by.get(tensor) if self._uses[tensor] == 1 else None

    def _plain(self, operator: Any, kind: int) -> Any:
        """The operation, if it is of a kind and nothing is fused to it."""
        if operator is None or kind_of(self._model, operator) != kind:
            return None
        return None if getattr(operator.builtinOptions, "fusedActivationFunction", 0) else operator

    def _constant(self, place: int) -> np.ndarray | None:
        tensor = self._graph.tensors[place]
        data = self._model.buffers[tensor.buffer].data
        if place in self._made_by or data is None or tensor.type != schema.TensorType.FLOAT32:
            return None
        return np.frombuffer(bytes(bytearray(data)), np.float32)


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)
