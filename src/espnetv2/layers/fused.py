"""How layers run on the fused operators of `kernels/`."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from espnetv2.kernels import norm_act as kernels
from espnetv2.kernels.depthwise_pyramid import (
    depthwise_pyramid,
    depthwise_pyramid_act,
    depthwise_pyramid_moments,
)
from espnetv2.kernels.layout import block_of, memory_format, pack


def fits(branches: Iterable[Any]) -> bool:
    """Whether these convolutions are what the operators compute: depth-wise, 3x3."""
    return all(
        type(branch) is nn.Conv2d
        and branch.kernel_size == (3, 3)
        and branch.groups == branch.in_channels == branch.out_channels
        for branch in branches
    )


def free(*parts: nn.Module) -> bool:
    """Whether nobody asks for what lies inside: no hooks, no tracer for another runtime."""
    if torch._C._get_tracing_state() is not None or torch.compiler.is_exporting():
        return False
    return not any(
        module._forward_hooks or module._forward_pre_hooks
        for part in parts
        for module in part.modules()
    )


def norm_act(
    x: Tensor,
    norm: Any,
    act: Any,
    residual: Tensor | None = None,
    moments: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """`act(norm(x) + residual)`: in training one operator, else the layers one by one.

    Shape: (B, C, H, W) -> the same

    Args:
        residual: None for none.
        moments: Mean and biased variance of x, (C,) each, where they are known.
    """
    if joins(x, norm, act):
        slope = act.weight if isinstance(act, nn.PReLU) else None
        given = {"residual": residual, "moments": moments, "eps": norm.eps}
        z, mean, var = kernels.norm_act(x, norm.weight, norm.bias, slope, **given)
        _follow(norm, mean, var, x.numel() // x.shape[1])
        return z
    out = norm(x)
    activated: Tensor = act(out if residual is None else out + residual)
    return activated


def joins(x: Tensor, norm: Any, act: Any) -> bool:
    """Whether the operator computes what these two do with x: a norm that trains, and a PReLU.

    Not a norm of another kind, without weights or running moments of a fixed momentum, or frozen.
    """
    return (
        type(norm) is nn.BatchNorm2d
        and norm.training
        and norm.affine
        and norm.running_mean is not None
        and norm.momentum is not None
        and (
            type(act) is nn.Identity
            or (type(act) is nn.PReLU and len(act.weight) == norm.num_features)
        )
        and x.dim() == 4
        and x.numel() > 0
        and free(norm, act)
    )


@torch.no_grad()
def _follow(norm: Any, mean: Tensor, var: Tensor, count: int) -> None:
    """Running moments of a norm, as torch moves them: the variance without bias."""
    norm.num_batches_tracked.add_(1)
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), norm.momentum)
    unbiased = var * (count / (count - 1))
    norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), norm.momentum)


def pyramid_norm_act(x: Tensor, branches: nn.ModuleList, fuse: Any) -> Tensor:
    """Branches, running sums, norm and activation of a unit.

    In one pass where nothing needs a gradient. In training the pass of the sums gives the norm's
    moments.

    Shape: (B, C/K, H, W) -> (B, C, H/s, W/s)

    Args:
        fuse: A `NormAct` of the train form or the deploy form.
    """
    weight, settings = stacked(branches), _settings(branches)
    if biases(branches) is None and joins(x, fuse.norm, fuse.act):
        y, mean, var = depthwise_pyramid_moments(x, weight, *settings)
        return norm_act(y, fuse.norm, fuse.act, moments=(mean, var))
    parameters = (x, *branches.parameters(), *fuse.parameters())
    if torch.is_grad_enabled() and any(one.requires_grad for one in parameters):
        return _shifted(depthwise_pyramid(x, weight, *settings), branches, fuse)
    factors = epilogue(branches, fuse)
    if factors is None:
        return _shifted(depthwise_pyramid(x, weight, *settings), branches, fuse)
    packed = pack(weight, block_of(x.shape[1], memory_format(x)))
    return depthwise_pyramid_act(x, packed, factors, *settings)


class FrozenPyramid(nn.Module):
    """The same for inference, with weights and norm laid out once, as they are now.

    It has no parameters and adds nothing to the state dict.

    Shape: as `pyramid_norm_act`
    """

    def __init__(self, branches: nn.ModuleList, fuse: nn.Module) -> None:
        super().__init__()
        self.settings = _settings(branches)
        with torch.no_grad():
            weight, factors = stacked(branches), epilogue(branches, fuse)
            assert factors is not None  # the unit is in evaluation
            packed = pack(weight, block_of(weight.shape[1], torch.channels_last))
        self.packed = nn.Buffer(packed, persistent=False)
        self.factors = nn.Buffer(factors, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return depthwise_pyramid_act(x, self.packed, self.factors, *self.settings)


def stacked(branches: Iterable[Any]) -> Tensor:
    """Weights of the branches as the operators take them, (K, C, 3, 3)."""
    return torch.stack([branch.weight.squeeze(1) for branch in branches])


def epilogue(branches: nn.ModuleList, fuse: Any) -> Tensor | None:
    """Scale, shift, rise and fall (4, K C) of a norm and an activation; None in training.

    In the deploy form the norm's shift is in the branches' biases, of which a sum has those of
    all nearer branches too, and the activation may have two slopes.
    """
    norm, act = fuse.norm, fuse.act
    bias = biases(branches)
    if isinstance(act, nn.PReLU):
        fall, rise = act.weight, torch.ones_like(act.weight)
    else:
        fall, rise = act.fall, act.fall + act.kink
    if isinstance(norm, nn.Identity):
        nothing = torch.zeros_like(fall)
        return torch.stack([torch.ones_like(fall), nothing if bias is None else bias, rise, fall])
    if norm.training or norm.running_var is None:
        return None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    mean = norm.running_mean if bias is None else norm.running_mean - bias
    return torch.stack([scale, norm.bias - mean * scale, rise, fall])


def biases(branches: Iterable[Any]) -> Tensor | None:
    """What biases of the branches add to the running sums, (K C,)."""
    own = [branch.bias for branch in branches]
    if own[0] is None:
        return None
    return torch.cat(list(accumulate(own)))


def _settings(branches: nn.ModuleList) -> tuple[list[int], int]:
    """Dilations and stride."""
    convolutions: list[Any] = list(branches)
    return [int(one.dilation[0]) for one in convolutions], int(convolutions[0].stride[0])


def _shifted(y: Tensor, branches: nn.ModuleList, fuse: nn.Module) -> Tensor:
    bias = biases(branches)
    out: Tensor = fuse(y if bias is None else y + bias.to(y.dtype).view(-1, 1, 1))
    return out
