"""LiteRT files with fewer bits: weights in half, or weights and activations in int8."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from torch import nn

from espnetv2.deploy.conversion import Job
from espnetv2.deploy.litert_graph import kind_of, name_of, read
from espnetv2.deploy.sensitivity import LAYERS
from espnetv2.errors import UserError

_HEAVY = {
    schema.BuiltinOperator.CONV_2D: "CONV_2D",
    schema.BuiltinOperator.DEPTHWISE_CONV_2D: "DEPTHWISE_CONV_2D",
    schema.BuiltinOperator.TRANSPOSE_CONV: "CONV_2D_TRANSPOSE",
    schema.BuiltinOperator.FULLY_CONNECTED: "FULLY_CONNECTED",
}
"""Operations with weights, and what the quantiser calls them."""
_WEIGHT = 1
"""Its place among an operation's inputs."""
_SIGNATURE, _INPUT = "serving_default", "args_0"
"""As the converter names them."""


def in_half(content: bytes) -> bytes:
    """Weights of convolutions and products in float16; GPUs compute in it, CPUs in float32."""
    from ai_edge_quantizer import qtyping, quantizer, recipe_manager

    rules = recipe_manager.RecipeManager()
    half = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
    for kind in _HEAVY.values():
        rules.add_quantization_config(
            regex=".*",
            operation_name=kind,
            op_config=qtyping.OpQuantizationConfig(
                weight_tensor_config=half,
                compute_precision=qtyping.ComputePrecision.FLOAT,
                explicit_dequantize=True,
            ),
            algorithm_key=recipe_manager.AlgorithmName.FLOAT_CASTING,
        )
    made = quantizer.Quantizer(bytearray(content), rules.get_quantization_recipe()).quantize()
    return bytes(made.quantized_model)


def in_int8(content: bytes, network: nn.Module, job: Job) -> bytes:
    """Weights per channel and activations per tensor in 8 bits, ranges from the job's pictures.

    Args:
        network: That the file was made of.

    Raises:
        UserError: There are no calibration inputs, or a layer to leave in float does not exist.
    """
    from ai_edge_quantizer import quantizer

    if not job.calibration:
        raise UserError("int8 needs pictures like the device's to find its ranges; give --calib")
    tool = quantizer.Quantizer(
        bytearray(content), _recipe(read(content), network, job.float_layers)
    )
    given = [{_INPUT: one} for one in job.calibration]
    ranges = tool.calibrate({_SIGNATURE: given}, num_threads=1)
    return bytes(tool.quantize(ranges).quantized_model)


def layers(model: Any, network: nn.Module) -> dict[str, tuple[str, ...]]:
    """Paths of the network's layers with weights, by the name of the tensor that each makes.

    The names that the converter gives do not tell layers of lists apart. So a layer is known by
    the values of its weight, in whatever order they lie; layers of equal weights go together.

    Args:
        model: In float.
        network: That it was made of.
    """
    known: dict[bytes, list[str]] = {}
    for path, module in network.named_modules():
        if isinstance(module, LAYERS):
            known.setdefault(_values(module.weight.detach().numpy()), []).append(path)
    graph, found = model.subgraphs[0], {}
    for one in graph.operators:
        if kind_of(model, one) in _HEAVY:
            weight = model.buffers[graph.tensors[int(one.inputs[_WEIGHT])].buffer].data
            values = np.frombuffer(bytes(bytearray(weight)), np.float32)
            made = name_of(graph.tensors[int(one.outputs[0])])
            found[made] = tuple(known.get(_values(values), ()))
    return found


def _values(weight: np.ndarray) -> bytes:
    return np.sort(weight, axis=None).tobytes()


def _recipe(model: Any, network: nn.Module, float_layers: tuple[str, ...]) -> Any:
    from ai_edge_quantizer import recipe_manager

    found = layers(model, network)
    missing = set(float_layers).difference(*found.values())
    if missing:
        raise UserError(f"no such layers to leave in float: {', '.join(sorted(missing))}")
    rules = recipe_manager.RecipeManager()
    for kind in _HEAVY.values():
        rules.add_static_config(".*", kind, activation_num_bits=8, weight_num_bits=8)
    for tensor, paths in found.items():
        if set(paths) & set(float_layers):
            rules.add_quantization_config(
                f"^{re.escape(tensor)};?$",
                "*",
                algorithm_key=recipe_manager.AlgorithmName.NO_QUANTIZE,
            )
    return rules.get_quantization_recipe()
