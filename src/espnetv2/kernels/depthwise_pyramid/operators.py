"""Registers the operators: schema, plain and fused implementation, shapes, gradients, autocast."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from espnetv2.kernels.depthwise_pyramid import reference
from espnetv2.kernels.dispatch import runs_on
from espnetv2.kernels.layout import memory_format, unpack
from espnetv2.kernels.registry import Operator, autocast, register, under_autocast

LARGEST_DILATION = 16
"""Beyond it the gradient of the input would want more registers than there are."""


def _forward(x: Tensor, weight: Tensor, dilations: list[int], stride: int) -> Tensor:
    _check(x, weight, dilations, stride)
    if runs_on(x.device.type):
        from espnetv2.kernels.depthwise_pyramid import launch, walk

        if stride == 1 and walk.walks(x, dilations, stride):
            return walk.forward(x, weight, dilations)
        return launch.forward(x, weight, dilations, stride)
    return _formed(reference.depthwise_pyramid(x, weight, dilations, stride), x)


def _forward_moments(
    x: Tensor, weight: Tensor, dilations: list[int], stride: int
) -> tuple[Tensor, Tensor, Tensor]:
    _check(x, weight, dilations, stride)
    if runs_on(x.device.type):
        from espnetv2.kernels.depthwise_pyramid import launch, walk

        if stride == 1 and walk.walks(x, dilations, stride):
            return walk.forward_moments(x, weight, dilations)
        return launch.forward_moments(x, weight, dilations, stride)
    y = _formed(reference.depthwise_pyramid(x, weight, dilations, stride), x)
    return y, *reference.moments(y)


def _forward_act(
    x: Tensor, packed: Tensor, factors: Tensor, dilations: list[int], stride: int
) -> Tensor:
    channels = x.shape[1]
    _check(x, unpack(packed, channels), dilations, stride)
    if runs_on(x.device.type):
        from espnetv2.kernels.depthwise_pyramid.launch import forward_act

        return forward_act(x, packed, factors, dilations, stride)
    y = reference.depthwise_pyramid(x, unpack(packed, channels), dilations, stride)
    return _formed(reference.scale_shift_act(y, factors), x)


def _grad_x(
    grad: Tensor, weight: Tensor, height: int, width: int, dilations: list[int], stride: int
) -> Tensor:
    if runs_on(grad.device.type) and max(dilations) <= LARGEST_DILATION:
        from espnetv2.kernels.depthwise_pyramid.launch import grad_x

        return grad_x(grad, weight, (height, width), dilations, stride)
    return _formed(reference.grad_x(grad, weight, (height, width), dilations, stride), grad)


def _grad_weight(grad: Tensor, x: Tensor, dilations: list[int], stride: int) -> Tensor:
    if runs_on(x.device.type):
        from espnetv2.kernels.depthwise_pyramid.launch import grad_weight

        return grad_weight(grad, x, dilations, stride)
    return reference.grad_weight(grad, x, dilations, stride)


def _gradients(
    grad: Tensor, x: Tensor, weight: Tensor, dilations: list[int], stride: int
) -> tuple[Tensor, Tensor]:
    _check(x, weight, dilations, stride)
    batch, channels, *size = x.shape
    wanted = batch, len(dilations) * channels, *(-(-side // stride) for side in size)
    if (tuple(grad.shape), grad.dtype) != (wanted, x.dtype):
        raise ValueError(
            f"grad {tuple(grad.shape)} of {grad.dtype}: expected {wanted} of {x.dtype}"
        )
    if runs_on(x.device.type):
        from espnetv2.kernels.depthwise_pyramid import walk

        if walk.walks(x, dilations, stride):
            return walk.backward(grad, x, weight, dilations, stride)
    dx = _grad_x(grad, weight, x.shape[2], x.shape[3], dilations, stride)
    return _formed(dx, x), _grad_weight(grad, x, dilations, stride)


def _formed(y: Tensor, like: Tensor) -> Tensor:
    return y.contiguous(memory_format=memory_format(like))


def _check(x: Tensor, weight: Tensor, dilations: list[int], stride: int) -> None:
    wanted = (len(dilations), x.shape[1] if x.dim() == 4 else -1, 3, 3)
    if x.dim() != 4 or tuple(weight.shape) != wanted:
        raise ValueError(
            f"x {tuple(x.shape)} and weight {tuple(weight.shape)} do not fit {dilations=}; "
            "expected (B, C, H, W) and (K, C, 3, 3)"
        )
    if not dilations or min(dilations) < 1 or stride not in (1, 2):
        raise ValueError(f"{dilations=} and {stride=}: expected dilations from 1, stride 1 or 2")


def _forward_shape(x: Tensor, weight: Tensor, dilations: list[int], stride: int) -> Tensor:
    batch, channels, height, width = x.shape
    shape = (batch, len(dilations) * channels, -(-height // stride), -(-width // stride))
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=memory_format(x))


def _moments_shape(
    x: Tensor, weight: Tensor, dilations: list[int], stride: int
) -> tuple[Tensor, Tensor, Tensor]:
    y = _forward_shape(x, weight, dilations, stride)
    wide = torch.promote_types(x.dtype, torch.float32)
    return y, y.new_empty(y.shape[1], dtype=wide), y.new_empty(y.shape[1], dtype=wide)


def _act_shape(
    x: Tensor, packed: Tensor, factors: Tensor, dilations: list[int], stride: int
) -> Tensor:
    return _forward_shape(x, packed, dilations, stride)


def _grad_x_shape(
    grad: Tensor, weight: Tensor, height: int, width: int, dilations: list[int], stride: int
) -> Tensor:
    shape, form = (len(grad), weight.shape[1], height, width), memory_format(grad)
    return torch.empty(shape, dtype=grad.dtype, device=grad.device, memory_format=form)


def _grad_weight_shape(grad: Tensor, x: Tensor, dilations: list[int], stride: int) -> Tensor:
    wide = torch.promote_types(x.dtype, torch.float32)
    return x.new_empty((len(dilations), x.shape[1], 3, 3), dtype=wide)


def _gradients_shape(
    grad: Tensor, x: Tensor, weight: Tensor, dilations: list[int], stride: int
) -> tuple[Tensor, Tensor]:
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=memory_format(x))
    return dx, _grad_weight_shape(grad, x, dilations, stride)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, weight, ctx.dilations, ctx.stride = inputs
    ctx.save_for_backward(x, weight)
    if isinstance(output, tuple):
        ctx.mark_non_differentiable(*output[1:])


def _backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, Tensor | None, None, None]:
    x, weight = ctx.saved_tensors
    settings, ops = (list(ctx.dilations), ctx.stride), torch.ops.espnetv2
    grad_x = grad_weight = None
    if all(ctx.needs_input_grad[:2]):
        grad_x, grad_weight = ops.depthwise_pyramid_backward(grad, x, weight, *settings)
    elif ctx.needs_input_grad[0]:
        grad_x = ops.depthwise_pyramid_grad_x(grad, weight, x.shape[2], x.shape[3], *settings)
    else:
        grad_weight = ops.depthwise_pyramid_grad_weight(grad, x, *settings)
    if grad_weight is not None:
        grad_weight = grad_weight.to(weight.dtype)
    return grad_x, grad_weight, None, None


_HOW = "int[] dilations, int stride"
register(
    {
        f"depthwise_pyramid(Tensor x, Tensor weight, {_HOW}) -> Tensor": Operator(
            _forward, _forward_shape, _backward, _remember
        ),
        f"depthwise_pyramid_moments(Tensor x, Tensor weight, {_HOW}) "
        "-> (Tensor, Tensor, Tensor)": Operator(
            _forward_moments, _moments_shape, _backward, _remember
        ),
        f"depthwise_pyramid_act(Tensor x, Tensor packed, Tensor factors, {_HOW}) "
        "-> Tensor": Operator(_forward_act, _act_shape),
        f"depthwise_pyramid_grad_x(Tensor grad, Tensor weight, SymInt height, SymInt width, "
        f"{_HOW}) -> Tensor": Operator(_grad_x, _grad_x_shape),
        f"depthwise_pyramid_backward(Tensor grad, Tensor x, Tensor weight, {_HOW}) "
        "-> (Tensor, Tensor)": Operator(_gradients, _gradients_shape),
        f"depthwise_pyramid_grad_weight(Tensor grad, Tensor x, {_HOW}) -> Tensor": Operator(
            _grad_weight, _grad_weight_shape
        ),
    }
)
_NAMES = ("depthwise_pyramid", "depthwise_pyramid_moments", "depthwise_pyramid_act")
autocast({name: under_autocast(name) for name in _NAMES})
