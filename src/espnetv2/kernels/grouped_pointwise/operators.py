"""Registers the operators: schema, plain and fused implementation, shapes, gradients, autocast."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from espnetv2.kernels.dispatch import runs_on
from espnetv2.kernels.grouped_pointwise import reference
from espnetv2.kernels.layout import memory_format
from espnetv2.kernels.registry import Operator, autocast, register, under_autocast


def _runs(x: Tensor) -> bool:
    return runs_on(x.device.type) and x.dtype != torch.float64


def _forward(x: Tensor, weight: Tensor, groups: int) -> Tensor:
    _check(x, weight, groups)
    if _runs(x):
        from espnetv2.kernels.grouped_pointwise import launch

        return launch.forward(x, weight, groups)
    return _formed(reference.grouped_pointwise(x, weight, groups), x)


def _moments(x: Tensor, weight: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    _check(x, weight, groups)
    if _runs(x):
        from espnetv2.kernels.grouped_pointwise import launch

        return launch.forward_moments(x, weight, groups)
    y = _formed(reference.grouped_pointwise(x, weight, groups), x)
    return y, *reference.moments(y)


def _act(
    x: Tensor, weight: Tensor, factors: Tensor, residual: Tensor | None, groups: int
) -> Tensor:
    _check(x, weight, groups)
    if _runs(x):
        from espnetv2.kernels.grouped_pointwise import launch

        return launch.forward_act(x, weight, factors, residual, groups)
    return _formed(reference.grouped_pointwise_act(x, weight, factors, residual, groups), x)


def _grad_x(grad: Tensor, weight: Tensor, groups: int) -> Tensor:
    if _runs(grad):
        from espnetv2.kernels.grouped_pointwise import launch

        return launch.grad_x(grad, weight, groups)
    return _formed(reference.grad_x(grad, weight, groups), grad)


def _grad_weight(grad: Tensor, x: Tensor, groups: int) -> Tensor:
    if _runs(x):
        from espnetv2.kernels.grouped_pointwise import launch

        return launch.grad_weight(grad, x, groups)
    return reference.grad_weight(grad, x, groups)


def _formed(y: Tensor, like: Tensor) -> Tensor:
    return y.contiguous(memory_format=memory_format(like))


def _check(x: Tensor, weight: Tensor, groups: int) -> None:
    fits = x.dim() == 4 and weight.dim() == 2 and groups > 0
    if not fits or len(weight) % groups or x.shape[1] != groups * weight.shape[1]:
        raise ValueError(
            f"x {tuple(x.shape)} and weight {tuple(weight.shape)} do not fit {groups=}; "
            "expected (B, C, H, W) and (D, C / groups)"
        )


def _shape(x: Tensor, weight: Tensor, groups: int) -> Tensor:
    shape = (x.shape[0], weight.shape[0], *x.shape[2:])
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=memory_format(x))


def _moments_shape(x: Tensor, weight: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    y = _shape(x, weight, groups)
    wide = torch.promote_types(x.dtype, torch.float32)
    return y, y.new_empty(y.shape[1], dtype=wide), y.new_empty(y.shape[1], dtype=wide)


def _act_shape(x: Tensor, weight: Tensor, factors: Tensor, residual: Any, groups: int) -> Tensor:
    return _shape(x, weight, groups)


def _grad_x_shape(grad: Tensor, weight: Tensor, groups: int) -> Tensor:
    shape, form = (len(grad), groups * weight.shape[1], *grad.shape[2:]), memory_format(grad)
    return torch.empty(shape, dtype=grad.dtype, device=grad.device, memory_format=form)


def _grad_weight_shape(grad: Tensor, x: Tensor, groups: int) -> Tensor:
    wide = torch.promote_types(x.dtype, torch.float32)
    return x.new_empty((grad.shape[1], x.shape[1] // groups), dtype=wide)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, weight, ctx.groups = inputs
    ctx.save_for_backward(x, weight)
    if isinstance(output, tuple):
        ctx.mark_non_differentiable(*output[1:])


def _backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, Tensor | None, None]:
    x, weight = ctx.saved_tensors
    ops, grad_x, grad_weight = torch.ops.espnetv2, None, None
    if ctx.needs_input_grad[0]:
        grad_x = ops.grouped_pointwise_grad_x(grad, weight, ctx.groups)
    if ctx.needs_input_grad[1]:
        grad_weight = ops.grouped_pointwise_grad_weight(grad, x, ctx.groups).to(weight.dtype)
    return grad_x, grad_weight, None


register(
    {
        "grouped_pointwise(Tensor x, Tensor weight, int groups) -> Tensor": Operator(
            _forward, _shape, _backward, _remember
        ),
        "grouped_pointwise_moments(Tensor x, Tensor weight, int groups) "
        "-> (Tensor, Tensor, Tensor)": Operator(_moments, _moments_shape, _backward, _remember),
        "grouped_pointwise_act(Tensor x, Tensor weight, Tensor factors, Tensor? residual, "
        "int groups) -> Tensor": Operator(_act, _act_shape),
        "grouped_pointwise_grad_x(Tensor grad, Tensor weight, int groups) -> Tensor": Operator(
            _grad_x, _grad_x_shape
        ),
        "grouped_pointwise_grad_weight(Tensor grad, Tensor x, int groups) -> Tensor": Operator(
            _grad_weight, _grad_weight_shape
        ),
    }
)
_NAMES = ("grouped_pointwise", "grouped_pointwise_moments", "grouped_pointwise_act")
autocast({name: under_autocast(name) for name in _NAMES})
