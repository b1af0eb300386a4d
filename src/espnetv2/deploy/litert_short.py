"""LiteRT files with fewer bits: weights in half, or weights and activations in int8."""

from __future__ import annotations

import re
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from espnetv2.deploy.conversion import Job
from espnetv2.deploy.litert_graph import kind_of, name_of, read
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


def in_int8(content: bytes, job: Job) -> bytes:
    """Weights per channel and activations per tensor in 8 bits, ranges from the job's pictures.

    Raises:
        UserError: There are no calibration inputs, or a layer to leave in float does not exist.
    """
    from ai_edge_quantizer import quantizer

    if not job.calibration:
        raise UserError("int8 needs pictures like the device's to find its ranges; give --calib")
    tool = quantizer.Quantizer(bytearray(content), _recipe(read(content), job.float_layers))
    given = [{_INPUT: one} for one in job.calibration]
    ranges = tool.calibrate({_SIGNATURE: given}, num_threads=1)
    return bytes(tool.quantize(ranges).quantized_model)


def layers(model: Any) -> dict[str, str]:
    """Paths of the network's layers with weights, by the name of the tensor that each makes."""
    graph = model.subgraphs[0]
    return {
        name_of(graph.tensors[int(one.outputs[0])]): layer_of(
            name_of(graph.tensors[int(one.inputs[_WEIGHT])])
        )
        for one in graph.operators
        if kind_of(model, one) in _HEAVY
    }


def layer_of(tensor: str) -> str:
    """The path of the module that a tensor comes from, as the converter writes it down.

    Each step is a class, with its modules, and the name of the attribute behind an underscore.
    """
    steps = tensor.split(";")[0].split("/")
    names = [step.rpartition(".")[2].partition("_")[2] for step in steps]
    return ".".join(name for name in names if name).removeprefix("network.")


def _recipe(model: Any, float_layers: tuple[str, ...]) -> Any:
    from ai_edge_quantizer import recipe_manager

    found = layers(model)
    missing = set(float_layers) - set(found.values())
    if missing:
        raise UserError(f"no such layers to leave in float: {', '.join(sorted(missing))}")
    rules = recipe_manager.RecipeManager()
    for kind in _HEAVY.values():
        rules.add_static_config(".*", kind, activation_num_bits=8, weight_num_bits=8)
    for tensor, layer in found.items():
        if layer in float_layers:
            rules.add_quantization_config(
                f"^{re.escape(tensor)};?$",
                "*",
                algorithm_key=recipe_manager.AlgorithmName.NO_QUANTIZE,
            )
    return rules.get_quantization_recipe()
