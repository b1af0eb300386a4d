"""The depth-wise pyramid of an EESP unit as one operator: `espnetv2::depthwise_pyramid`.

Four dilated convolutions, three additions and a concatenation read one map and write four. Layer
by layer they move 25 maps; here they move the 5 that they must. Gradients likewise.

The operators are opaque to `torch.compile` (they are no `triton_op`): what surrounds them are
matrix products and reductions, which the compiler could not join with them anyway, and so the same
code runs in eager mode, compiled and in CUDA graphs. Where Triton does not run, the reference
does. Under autocast the map is of the low precision and the weights stay as they are.

The derivation is in docs/kernels.md.
"""

from __future__ import annotations

import torch
from torch import Tensor

from espnetv2.kernels.depthwise_pyramid import operators as operators  # registers them


def depthwise_pyramid(x: Tensor, weight: Tensor, dilations: list[int], stride: int) -> Tensor:
    """Depth-wise 3x3 convolutions of one map, their running sums, side by side; differentiable.

    Sums are of float32 or wider; the result has the memory format of `x`.

    Paper: espnetv2 sec. 3.2, Fig. 1c.
    Shape: x (B, C, H, W), weight (K, C, 3, 3), K dilations
        -> (B, K C, ceil(H / stride), ceil(W / stride)), branch after branch

    Raises:
        ValueError: Shapes, dilations and stride do not fit.

    >>> depthwise_pyramid(torch.ones(1, 2, 5, 5), torch.ones(4, 2, 3, 3), [1, 1, 2, 3], 1).shape
    torch.Size([1, 8, 5, 5])
    """
    out: Tensor = torch.ops.espnetv2.depthwise_pyramid(x, weight, dilations, stride)
    return out


def depthwise_pyramid_moments(
    x: Tensor, weight: Tensor, dilations: list[int], stride: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The same with mean and biased variance of every channel of the result, in the same pass.

    Mean and variance take no gradient: a norm that uses them has them in its own.

    Shape: as `depthwise_pyramid` -> that, (K C,), (K C,) in float32 or wider
    """
    y, mean, var = torch.ops.espnetv2.depthwise_pyramid_moments(x, weight, dilations, stride)
    return y, mean, var


def depthwise_pyramid_act(
    x: Tensor, packed: Tensor, factors: Tensor, dilations: list[int], stride: int
) -> Tensor:
    """The same with z = y * scale + shift and two slopes applied before it is written.

    For inference. The result is rise * z where z is positive, else fall * z; a PReLU rises by 1.

    Shape: x (B, C, H, W), packed as `kernels.layout.pack` does with the weights (K, C, 3, 3),
        factors (4, K C): scale, shift, rise, fall -> as `depthwise_pyramid`

    Raises:
        RuntimeError: A gradient is asked for; there is none.
    """
    out: Tensor = torch.ops.espnetv2.depthwise_pyramid_act(x, packed, factors, dilations, stride)
    return out
