"""Batch norm in training, a residual and a PReLU as one operator: `espnetv2::norm_act`.

Layer by layer they read and write a map 8 times forward and 8 backward; here 4 and 7, and 2 and 5
without a residual where the moments are known. What lies between norm and PReLU is never stored:
its sign is computed again. Opaque to `torch.compile`, as `kernels.depthwise_pyramid` is. Where
Triton does not run, the reference does. Under autocast maps are of the low precision and
parameters stay as they are.

The passes are counted in docs/kernels.md.
"""

from __future__ import annotations

import torch
from torch import Tensor

from espnetv2.kernels.norm_act import operators as operators  # registers them


def norm_act(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    slope: Tensor | None = None,
    *,
    residual: Tensor | None = None,
    moments: tuple[Tensor, Tensor] | None = None,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor, Tensor]:
    """What `nn.BatchNorm2d` in training, an addition and `nn.PReLU` do; differentiable.

    Mean and biased variance are given too, for the running ones. They take no gradient: that of x
    has what goes through them.

    Shape: x and residual (B, C, H, W), weight, bias, slope and moments (C,)
        -> (B, C, H, W), (C,), (C,)

    Args:
        slope: None for no activation.
        moments: Mean and biased variance of x, where something has computed them already.

    Raises:
        ValueError: Shapes do not fit, or there is a single value per channel.

    >>> z, mean, var = norm_act(torch.randn(2, 3, 5, 5), torch.ones(3), torch.zeros(3))
    >>> z.shape, mean.shape
    (torch.Size([2, 3, 5, 5]), torch.Size([3]))
    """
    if x.dim() == 4 and x.shape[0] * x.shape[2] * x.shape[3] == 1:
        raise ValueError(  # as torch says it
            f"Expected more than 1 value per channel when training, got input size {x.shape}"
        )
    mean, var = torch.ops.espnetv2.channel_moments(x.detach()) if moments is None else moments
    z: Tensor = torch.ops.espnetv2.norm_act(x, residual, mean, var, weight, bias, slope, eps)
    return z, mean, var
