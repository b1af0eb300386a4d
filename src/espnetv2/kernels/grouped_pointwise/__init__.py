"""Grouped 1x1 convolutions as one operator: `espnetv2::grouped_pointwise`.

In training the pass that writes the result gives the moments of the norm behind it. In inference
norm, residual and PReLU are applied before the write, so that half of an EESP unit's launches go.
Opaque to `torch.compile`, as `kernels.depthwise_pyramid` is. Where Triton does not run, and in
float64, the reference does. Under autocast maps are of the low precision and the weights stay as
they are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from espnetv2.kernels.grouped_pointwise import operators as operators  # registers them


def grouped_pointwise(x: Tensor, weight: Tensor, groups: int) -> Tensor:
    """A 1x1 convolution of every group of channels; differentiable.

    Sums are of float32; the result has the memory format of `x`.

    Paper: espnetv2 sec. 3.2.
    Shape: x (B, C, H, W), weight (D, C / groups) -> (B, D, H, W)

    Raises:
        ValueError: Shapes and groups do not fit.

    >>> grouped_pointwise(torch.ones(1, 4, 2, 2), torch.ones(6, 2), 2).shape
    torch.Size([1, 6, 2, 2])
    """
    out: Tensor = torch.ops.espnetv2.grouped_pointwise(x, weight, groups)
    return out


def grouped_pointwise_moments(
    x: Tensor, weight: Tensor, groups: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The same with mean and biased variance of every channel of the result, in the same pass.

    They are of the sums, before these are rounded to the type of `x`, and take no gradient: a norm
    that uses them has them in its own.

    Shape: as `grouped_pointwise` -> that, (D,), (D,) in float32 or wider
    """
    y, mean, var = torch.ops.espnetv2.grouped_pointwise_moments(x, weight, groups)
    return y, mean, var


def grouped_pointwise_act(
    x: Tensor, weight: Tensor, factors: Tensor, residual: Tensor | None, groups: int
) -> Tensor:
    """The same with z = y * scale + shift + residual and two slopes applied before it is written.

    For inference. The result is rise * z where z is positive, else fall * z; a PReLU rises by 1.

    Shape: factors (4, D): scale, shift, rise, fall; residual as the result, or None
        -> as `grouped_pointwise`

    Raises:
        RuntimeError: A gradient is asked for; there is none.
    """
    out: Tensor = torch.ops.espnetv2.grouped_pointwise_act(x, weight, factors, residual, groups)
    return out
