"""What is left to do on an ONNX graph: pools as runtimes like them, names that people know."""

from __future__ import annotations

import ast
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from espnetv2.errors import UserError

_FEW = 8  # channels; a pool of fewer is slow, a convolution of so few is not
_LARGEST = 2**31 - 1  # bytes of a file without others beside it
_OWN = {"", "ai.onnx"}


def tidy(
    model: onnx.ModelProto,
    notes: Mapping[str, str],
    modules: Mapping[str, str],
    *,
    rewrite: bool = True,
) -> onnx.ModelProto:
    """The model, changed in place: faster pools, layers by their module's name, no notes but ours.

    Args:
        notes: For the file's properties.
        modules: Names of the traced modules, and what to call them.
        rewrite: Whether to make pools faster.

    Raises:
        UserError: The graph has functions or operators that are not ONNX's own.
    """
    foreign = {node.domain for node in model.graph.node} - _OWN
    if model.functions or foreign:
        raise UserError(f"the ONNX graph has operators of {', '.join(sorted(foreign)) or 'torch'}")
    shapes = _shapes(model.graph)
    constants = {one.name: one for one in model.graph.initializer}
    for node in model.graph.node:
        if rewrite and node.op_type == "AveragePool":
            _pool_by_convolution(node, model.graph, shapes)
        elif rewrite and node.op_type == "ReduceMean":
            _pool_globally(node, shapes, constants)
    _drop_unused(model.graph)
    _name_by_module(model.graph, modules)
    for part in (model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        del part.metadata_props[:]
        part.ClearField("doc_string")
    for one in (*model.graph.input, *model.graph.output):
        del one.metadata_props[:]
    del model.metadata_props[:]
    helper.set_model_props(model, dict(notes))
    model.producer_name = "espnetv2"
    assert model.ByteSize() < _LARGEST
    return model


def layers(graph: onnx.GraphProto) -> list[str]:
    """Names of the nodes with weights of the network, in the order of computing."""
    return [node.name for node in graph.node if _is_layer(node)]


def _is_layer(node: onnx.NodeProto) -> bool:
    weighted = {"Conv", "ConvTranspose", "Gemm"}
    return node.op_type in weighted and node.input[1].endswith("weight")


def _pool_by_convolution(
    node: onnx.NodeProto, graph: onnx.GraphProto, shapes: dict[str, list[int | str]]
) -> None:
    """Means of the picture's 3 channels: runtimes compute convolutions of so few channels faster.

    The convolution is a dense one, which runtimes have a fast path for, unlike depth-wise ones.
    """
    channels = shapes.get(node.input[0], [0, 0])[1]
    options = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    plain = options.get("count_include_pad", 0) == 1 and not options.get("ceil_mode", 0)
    if not plain or not isinstance(channels, int) or not 0 < channels < _FEW:
        return
    kernel = options["kernel_shape"]
    weight = np.zeros((channels, channels, *kernel), dtype=_dtype(graph, node.input[0]))
    weight[range(channels), range(channels)] = 1 / np.prod(kernel)
    name = f"{node.name}.means"
    graph.initializer.append(numpy_helper.from_array(weight, name))
    kept = {key: options[key] for key in ("kernel_shape", "strides", "pads") if key in options}
    made = helper.make_node("Conv", [node.input[0], name], list(node.output), node.name, **kept)
    made.metadata_props.extend(node.metadata_props)
    node.CopyFrom(made)


def _pool_globally(
    node: onnx.NodeProto,
    shapes: dict[str, list[int | str]],
    constants: dict[str, onnx.TensorProto],
) -> None:
    """The mean over height and width is an operator of its own, which keeps blocks of channels."""
    options = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    axes = constants.get(node.input[1]) if len(node.input) > 1 else None
    if axes is None or len(shapes.get(node.input[0], [])) != 4 or not options.get("keepdims", 1):
        return
    if sorted(int(axis) % 4 for axis in numpy_helper.to_array(axes)) != [2, 3]:
        return
    made = helper.make_node("GlobalAveragePool", [node.input[0]], list(node.output), node.name)
    made.metadata_props.extend(node.metadata_props)
    node.CopyFrom(made)


def _drop_unused(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input}
    used |= {one.name for one in graph.output}
    kept = [one for one in graph.initializer if one.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _name_by_module(graph: onnx.GraphProto, modules: Mapping[str, str]) -> None:
    """A node is called after the module that it comes from, and after its kind if not a layer."""
    taken: dict[str, int] = {}
    for node in graph.node:
        notes = {one.key: one.value for one in node.metadata_props}
        scopes = ast.literal_eval(notes.get("pkg.torch.onnx.name_scopes", "['']"))
        module = next((modules[scope] for scope in reversed(scopes) if scope in modules), "")
        name = module if _is_layer(node) else f"{module}.{node.op_type}".lstrip(".")
        taken[name] = taken.get(name, 0) + 1
        node.name = name if taken[name] == 1 else f"{name}_{taken[name]}"


def _shapes(graph: onnx.GraphProto) -> dict[str, list[int | str]]:
    return {one.name: sides(one) for one in (*graph.input, *graph.value_info, *graph.output)}


def sides(value: onnx.ValueInfoProto) -> list[int | str]:
    """Of a tensor: numbers, and names of sides that are free."""
    found = value.type.tensor_type.shape.dim
    return [one.dim_value if one.HasField("dim_value") else one.dim_param for one in found]


def _dtype(graph: onnx.GraphProto, name: str) -> np.dtype:
    for one in (*graph.input, *graph.value_info):
        if one.name == name:
            return helper.tensor_dtype_to_np_dtype(one.type.tensor_type.elem_type)
    return np.dtype("float32")
