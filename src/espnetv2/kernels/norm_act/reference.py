"""Batch norm, residual and PReLU in plain torch: what the kernels must compute."""

from __future__ import annotations

import torch
from torch import Tensor


def moments(y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of every channel, in float32 or wider.

    Shape: (B, C, H, W) -> (C,), (C,)
    """
    var, mean = torch.var_mean(y.to(widened(y.dtype)), dim=(0, 2, 3), correction=0)
    return mean, var


def norm_act(
    x: Tensor,
    residual: Tensor | None,
    mean: Tensor,
    var: Tensor,
    weight: Tensor,
    bias: Tensor,
    slope: Tensor | None,
    eps: float,
) -> Tensor:
    """Norm of a map by the given moments, plus a residual, and a PReLU; each where it is given.

        u = (x - mean) / sqrt(var + eps) * weight + bias + residual
        z = u where u is positive, else slope * u

    Paper: espnetv2 sec. 3.3, a norm and a PReLU behind every convolution.
    Shape: x and residual (B, C, H, W), the others (C,) -> (B, C, H, W)
    """
    normed = _normed(x, mean, var, eps)
    z = _before(normed, residual, weight, bias)
    if slope is not None:
        z = torch.where(z > 0, z, z * _column(slope, z))
    return z.to(x.dtype)


def backward(
    grad: Tensor,
    x: Tensor,
    residual: Tensor | None,
    mean: Tensor,
    var: Tensor,
    weight: Tensor,
    bias: Tensor,
    slope: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Gradients, with mean and variance as what they are: functions of x.

        du = dz where u is positive, else slope * dz
        dx = (du - mean(du) - n mean(du n)) * weight / sqrt(var + eps),  n = (x - mean) / sqrt(...)

    Shape: -> dx, du (the residual's, None where there is no PReLU or no residual), and in float32
        or wider (3, C): the sums of du, of du n, and of dz u where u is not positive; which are
        the gradients of bias, weight and slope
    """
    normed = _normed(x, mean, var, eps)
    du = above = grad.to(normed.dtype)
    below = torch.zeros_like(du)
    if slope is not None:
        u = _before(normed, residual, weight, bias)
        du = torch.where(u > 0, above, above * _column(slope, u))
        below = torch.where(u > 0, 0.0, above * u)
    sums = torch.stack([one.sum(dim=(0, 2, 3)) for one in (du, du * normed, below)])
    count = max(1, x.numel() // x.shape[1])
    even, tilt = (_column(one / count, du) for one in sums[:2])
    scale = _column(weight, du) / _column(var + eps, du).sqrt()
    dx = ((du - even - normed * tilt) * scale).to(x.dtype)
    return dx, None if residual is None or slope is None else du.to(x.dtype), sums


def _normed(x: Tensor, mean: Tensor, var: Tensor, eps: float) -> Tensor:
    wide = x.to(widened(x.dtype))
    return (wide - _column(mean, wide)) / _column(var + eps, wide).sqrt()


def _before(normed: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor) -> Tensor:
    u = normed * _column(weight, normed) + _column(bias, normed)
    return u if residual is None else u + residual.to(u.dtype)


def _column(values: Tensor, like: Tensor) -> Tensor:
    """(C,) -> (C, 1, 1)."""
    return values.to(like.dtype).view(-1, 1, 1)


def widened(dtype: torch.dtype) -> torch.dtype:
    """What sums of such numbers are made in: float32, or float64 of float64."""
    return torch.promote_types(dtype, torch.float32)
