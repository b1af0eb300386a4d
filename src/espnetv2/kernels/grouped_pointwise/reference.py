"""Grouped 1x1 convolutions in plain torch: what the kernels must compute."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import grad as gradients

from espnetv2.kernels.norm_act.reference import moments as moments
from espnetv2.kernels.norm_act.reference import widened


def grouped_pointwise(x: Tensor, weight: Tensor, groups: int) -> Tensor:
    """A 1x1 convolution of every group of channels.

    Paper: espnetv2 sec. 3.2, the group point-wise convolutions before and behind the branches.
    Shape: x (B, C, H, W), weight (D, C / groups) -> (B, D, H, W)
    """
    return F.conv2d(x, weight.to(x.dtype)[:, :, None, None], groups=groups)


def grouped_pointwise_act(
    x: Tensor, weight: Tensor, factors: Tensor, residual: Tensor | None, groups: int
) -> Tensor:
    """The same, and z = y * scale + shift + residual, times one of two slopes.

    Shape: factors (4, D): scale, shift, rise, fall; residual as the result -> (B, D, H, W)
    """
    wide = widened(x.dtype)
    scale, shift, rise, fall = factors.to(wide).view(4, -1, 1, 1).unbind()
    z = grouped_pointwise(x, weight, groups).to(wide) * scale + shift
    if residual is not None:
        z = z + residual.to(wide)
    out: Tensor = z * torch.where(z > 0, rise, fall)
    return out.to(x.dtype)


def grad_x(grad: Tensor, weight: Tensor, groups: int) -> Tensor:
    """Gradient of the input: the same convolution with every group's weights transposed.

    Shape: grad (B, D, H, W), weight (D, C / groups) -> (B, C, H, W)
    """
    shape = (len(grad), groups * weight.shape[1], *grad.shape[2:])
    found: Tensor = gradients.conv2d_input(  # type: ignore[no-untyped-call]
        shape, weight.to(grad.dtype)[:, :, None, None], grad, groups=groups
    )
    return found


def grad_weight(grad: Tensor, x: Tensor, groups: int) -> Tensor:
    """Gradient of the weights, in float32 or wider.

    Shape: grad (B, D, H, W), x (B, C, H, W) -> (D, C / groups)
    """
    shape = (grad.shape[1], x.shape[1] // groups, 1, 1)
    found: Tensor = gradients.conv2d_weight(  # type: ignore[no-untyped-call]
        x, shape, grad, groups=groups
    )
    return found.flatten(1).to(widened(x.dtype))
