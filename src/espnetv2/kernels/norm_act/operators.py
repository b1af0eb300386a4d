"""Registers the operators: schema, plain and fused implementation, shapes, gradients, autocast."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from espnetv2.kernels.dispatch import runs_on
from espnetv2.kernels.layout import memory_format
from espnetv2.kernels.norm_act import reference
from espnetv2.kernels.registry import Operator, autocast, register, under_autocast


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    _check(x, None)
    if runs_on(x.device.type) and x.numel():
        from espnetv2.kernels.norm_act import launch

        return launch.moments(x)
    return reference.moments(x)


def _forward(x: Tensor, residual: Tensor | None, *others: Any) -> Tensor:
    _check(x, residual, *others[:-1])
    if runs_on(x.device.type):
        from espnetv2.kernels.norm_act import launch

        return launch.forward(x, residual, *others)
    return _formed(reference.norm_act(x, residual, *others), x)


def _backward(grad: Tensor, x: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    if runs_on(x.device.type):
        from espnetv2.kernels.norm_act import launch

        dx, du, sums = launch.backward(grad, x, *others)
    else:
        dx, du, sums = reference.backward(grad, x, *others)
    return _formed(dx, x), x.new_empty(0) if du is None else _formed(du, x), sums


def _formed(y: Tensor, like: Tensor) -> Tensor:
    return y.contiguous(memory_format=memory_format(like))


def _check(x: Tensor, residual: Tensor | None, *vectors: Tensor | None) -> None:
    shapes = [tuple(one.shape) for one in vectors if one is not None]
    if x.dim() != 4 or any(one != tuple(x.shape[1:2]) for one in shapes):
        raise ValueError(f"x {tuple(x.shape)} and vectors {shapes}: expected (B, C, H, W) and (C,)")
    if residual is not None and (residual.shape, residual.dtype) != (x.shape, x.dtype):
        raise ValueError(
            f"residual {tuple(residual.shape)} of {residual.dtype} and x {tuple(x.shape)} of "
            f"{x.dtype} differ"
        )


def _moments_shape(x: Tensor) -> tuple[Tensor, Tensor]:
    mean = x.new_empty(x.shape[1], dtype=reference.widened(x.dtype))
    return mean, torch.empty_like(mean)


def _forward_shape(x: Tensor, *others: Any) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=memory_format(x))


def _backward_shape(
    grad: Tensor, x: Tensor, residual: Tensor | None, *others: Any
) -> tuple[Tensor, Tensor, Tensor]:
    du = x.new_empty(0) if residual is None or others[-2] is None else _forward_shape(x)
    return _forward_shape(x), du, x.new_empty((3, x.shape[1]), dtype=reference.widened(x.dtype))


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.eps = inputs
    ctx.save_for_backward(*tensors)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    _, residual, _, _, weight, bias, slope = ctx.saved_tensors
    dx, du, sums = torch.ops.espnetv2.norm_act_backward(grad, *ctx.saved_tensors, ctx.eps)
    d_bias, d_weight = sums[0].to(bias.dtype), sums[1].to(weight.dtype)
    d_slope = None if slope is None else sums[2].to(slope.dtype)
    beside = None if residual is None else grad if slope is None else du
    return dx, beside, None, None, d_weight, d_bias, d_slope, None


_HOW = "Tensor mean, Tensor var, Tensor weight, Tensor bias, Tensor? slope, float eps"
register(
    {
        "channel_moments(Tensor x) -> (Tensor, Tensor)": Operator(_moments, _moments_shape),
        f"norm_act(Tensor x, Tensor? residual, {_HOW}) -> Tensor": Operator(
            _forward, _forward_shape, _gradients, _remember
        ),
        f"norm_act_backward(Tensor grad, Tensor x, Tensor? residual, {_HOW}) "
        "-> (Tensor, Tensor, Tensor)": Operator(_backward, _backward_shape),
    }
)
autocast(
    {
        "channel_moments": under_autocast("channel_moments"),
        "norm_act": under_autocast("norm_act", maps=2),
    }
)
