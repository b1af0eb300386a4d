"""What is left to do on an OpenVINO graph: operators in the form that its CPU plugin is fast at."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
from openvino import opset13 as ops

_NARROW = 16  # channels; fewer do not fill a register


def tidy(model: openvino.Model) -> None:
    """Write pools of the picture and PReLUs as what is fast, in place."""
    for operation in model.get_ordered_ops():
        if operation.get_type_name() == "AvgPool":
            _pool_as_convolution(operation)
        elif operation.get_type_name() == "Select":
            _select_as_prelu(operation)
    model.validate_nodes_and_infer_types()


def _pool_as_convolution(pool: Any) -> None:
    """OpenVINO pools blocks of channels, so three channels cost as much as sixteen.

    The picture would change its layout twice, too; convolutions take pictures as they are.
    """
    channels, options = pool.input(0).get_partial_shape()[1], pool.get_attributes()
    plain = not options["exclude-pad"] and options["rounding_type"] == "floor"
    if not plain or channels.is_dynamic or channels.get_length() >= _NARROW:
        return
    rows, columns = options["kernel"]
    one = np.eye(channels.get_length(), dtype=np.float32) / (rows * columns)
    weight = np.repeat(np.repeat(one[:, :, None, None], rows, axis=2), columns, axis=3)
    made = ops.convolution(
        pool.input_value(0),
        ops.constant(weight),
        strides=options["strides"],
        pads_begin=options["pads_begin"],
        pads_end=options["pads_end"],
        dilations=[1, 1],
        name=pool.get_friendly_name(),
    )
    pool.output(0).replace(made.output(0))


def _select_as_prelu(select: Any) -> None:
    """A PReLU comes from torch as `x > 0 ? x : slope x`.

    As an operator of its own it is computed within the convolution before it.
    """
    above, x, below = (select.input_value(place) for place in range(3))
    if (above.get_node().get_type_name(), below.get_node().get_type_name()) != (
        "Greater",
        "Multiply",
    ):
        return
    factors = [below.get_node().input_value(place) for place in range(2)]
    slopes = [one for one in factors if one != x]
    bounds = above.get_node().input_value(1)
    if len(slopes) != 1 or above.get_node().input_value(0) != x or not _is_zero(bounds):
        return
    made = ops.prelu(x, slopes[0])
    made.set_friendly_name(select.get_friendly_name())
    select.output(0).replace(made.output(0))


def _is_zero(value: Any) -> bool:
    """Whether a constant, converted or not, is 0."""
    node = value.get_node()
    while node.get_type_name() in {"Convert", "ConvertLike", "Reshape"}:
        node = node.input_value(0).get_node()
    return node.get_type_name() == "Constant" and not np.any(node.data)
