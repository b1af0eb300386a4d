"""The depth-wise pyramid of an EESP unit in plain torch: what the kernels must compute."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import grad as gradients

from espnetv2.kernels.norm_act.reference import moments as moments
from espnetv2.kernels.norm_act.reference import widened


def depthwise_pyramid(x: Tensor, weight: Tensor, dilations: Sequence[int], stride: int) -> Tensor:
    """Depth-wise 3x3 convolutions of one map, their running sums, side by side.

        y_k = sum over j <= k of conv(x, weight_j, dilation_j), padded by the dilation

    Paper: espnetv2 sec. 3.2, Fig. 1c (hierarchical feature fusion).
    Shape: x (B, C, H, W), weight (K, C, 3, 3), K dilations
        -> (B, K C, ceil(H / stride), ceil(W / stride)), branch after branch
    """
    maps: list[Tensor] = []
    for kernel, dilation in zip(weight.to(x.dtype).unsqueeze(2), dilations, strict=True):
        seen = F.conv2d(
            x, kernel, stride=stride, padding=dilation, dilation=dilation, groups=x.shape[1]
        )
        maps.append(seen + maps[-1] if maps else seen)
    return torch.cat(maps, dim=1)


def grad_x(
    grad: Tensor, weight: Tensor, size: tuple[int, int], dilations: Sequence[int], stride: int
) -> Tensor:
    """Gradient of the input: transposed convolutions of the suffix sums of the gradients.

        dx = sum over k of conv^T(sum over m >= k of dy_m, weight_k, dilation_k)

    Shape: grad (B, K C, H', W'), weight (K, C, 3, 3) -> (B, C, *size)
    """
    channels = weight.shape[1]
    shape = (len(grad), channels, *size)
    total = grad.new_zeros(shape)
    kernels = weight.to(grad.dtype).unsqueeze(2)
    for suffix, kernel, d in zip(_suffixes(grad, channels), kernels, dilations, strict=True):
        total += gradients.conv2d_input(  # type: ignore[no-untyped-call]
            shape, kernel, suffix, stride, d, d, channels
        )
    return total


def grad_weight(grad: Tensor, x: Tensor, dilations: Sequence[int], stride: int) -> Tensor:
    """Gradient of the weights, in float32 or wider.

    Shape: grad (B, K C, H', W'), x (B, C, H, W) -> (K, C, 3, 3)
    """
    channels = x.shape[1]
    found = [
        gradients.conv2d_weight(  # type: ignore[no-untyped-call]
            x, (channels, 1, 3, 3), suffix, stride, d, d, channels
        )
        for suffix, d in zip(_suffixes(grad, channels), dilations, strict=True)
    ]
    return torch.cat(found, dim=1).transpose(0, 1).to(widened(x.dtype)).contiguous()


def _suffixes(grad: Tensor, channels: int) -> list[Tensor]:
    """A branch's own gradient and those of all later sums, which it feeds too."""
    parts = list(torch.split(grad, channels, dim=1))
    for k in range(len(parts) - 2, -1, -1):
        parts[k] = parts[k] + parts[k + 1]
    return parts


def scale_shift_act(y: Tensor, factors: Tensor) -> Tensor:
    """What norm and PReLU do in evaluation: z = y * scale + shift, times one of two slopes.

    Shape: y (B, C, H, W), factors (4, C): scale, shift, rise, fall -> (B, C, H, W)
    """
    wide = widened(y.dtype)
    scale, shift, rise, fall = factors.to(wide).view(4, -1, 1, 1)
    z = y.to(wide) * scale + shift
    out: Tensor = z * torch.where(z > 0, rise, fall)
    return out.to(y.dtype)
