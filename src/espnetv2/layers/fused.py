"""How layers run on the fused operators of `kernels/`."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from espnetv2.kernels import norm_act as kernels
from espnetv2.kernels.depthwise_pyramid import (
    depthwise_pyramid,
    depthwise_pyramid_act,
    depthwise_pyramid_moments,
)
from espnetv2.kernels.grouped_pointwise import grouped_pointwise_act, grouped_pointwise_moments
from espnetv2.kernels.layout import block_of, memory_format, pack

SHORT = (torch.bfloat16, torch.float16)
"""Types in which 1x1 convolutions train on the operators; of float32 torch's own are as good."""


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


def conv_norm_act(
    x: Tensor, conv: Any, norm: Any, act: Any, residual: Tensor | None, frozen: Tensor | None
) -> Tensor:
    """`act(norm(conv(x)) + residual)`.

    1x1 convolutions run on the operators: in inference with all that follows in the same pass, in
    training with the moments for the norm. What remains is `norm_act`'s.

    Shape: (B, C, H, W) -> (B, D, H, W), as the residual

    Args:
        frozen: The factors that `epilogue` gives, where they were laid out before.
    """
    if pointwise(conv) and free(conv, norm, act) and x.dim() == 4 and x.numel():
        weight = conv.weight.flatten(1)
        if conv.bias is None and _kind(x) in SHORT and joins(x, norm, act):
            y, mean, var = grouped_pointwise_moments(x, weight, conv.groups)
            return norm_act(y, norm, act, residual, (mean, var))
        if not _learns(x, residual, *_parameters(conv, norm, act)):
            factors = epilogue_of(conv, norm, act) if frozen is None else frozen
            if factors is not None:
                return grouped_pointwise_act(x, weight, factors, residual, conv.groups)
    return norm_act(conv(x), norm, act, residual)


def epilogue_of(conv: Any, norm: Any, act: Any) -> Tensor | None:
    """`epilogue` behind a convolution."""
    return epilogue(conv.bias, norm, act, conv.weight.new_ones(conv.out_channels))


def pointwise(conv: Any) -> bool:
    """Whether a convolution is what the operators of 1x1 compute."""
    if type(conv) is not nn.Conv2d:
        return False
    return (conv.kernel_size, conv.stride, conv.padding) == ((1, 1), (1, 1), (0, 0))


def _kind(x: Tensor) -> torch.dtype:
    """What a convolution of x computes in."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def _parameters(*parts: nn.Module) -> list[nn.Parameter]:
    return [one for part in parts for one in part.parameters()]


def _learns(*given: Tensor | None) -> bool:
    """Whether something needs a gradient."""
    return torch.is_grad_enabled() and any(one is not None and one.requires_grad for one in given)


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
    factors = None
    if not _learns(x, *_parameters(branches, fuse)):
        factors = _behind(branches, fuse)
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
            weight, factors = stacked(branches), _behind(branches, fuse)
            assert factors is not None  # the unit is in evaluation
            packed = pack(weight, block_of(weight.shape[1], torch.channels_last))
        self.packed = nn.Buffer(packed, persistent=False)
        self.factors = nn.Buffer(factors, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return depthwise_pyramid_act(x, self.packed, self.factors, *self.settings)


def _behind(branches: nn.ModuleList, fuse: Any) -> Tensor | None:
    """`epilogue` behind the running sums."""
    channels = sum(branch.out_channels for branch in _convolutions(branches))
    ones = next(branches.parameters()).new_ones(channels)
    return epilogue(biases(branches), fuse.norm, fuse.act, ones)


def stacked(branches: Iterable[Any]) -> Tensor:
    """Weights of the branches as the operators take them, (K, C, 3, 3)."""
    return torch.stack([branch.weight.squeeze(1) for branch in branches])


def epilogue(bias: Tensor | None, norm: Any, act: Any, ones: Tensor) -> Tensor | None:
    """Scale, shift, rise and fall (4, C) of a bias, a norm and an activation.

    None where they are no such thing: a norm in training or of another kind, an activation whose
    slopes are not of channels. In the deploy form the norm is in weights and biases or a factor
    and a summand, and the activation may have two slopes.

    Args:
        ones: (C,), as many as there are channels.
    """
    affine, slopes = _affine(norm, ones), _slopes(act, ones)
    if affine is None or slopes is None:
        return None
    scale, shift = affine
    return torch.stack([scale, shift if bias is None else shift + bias * scale, *slopes])


def _affine(norm: Any, ones: Tensor) -> tuple[Tensor, Tensor] | None:
    if isinstance(norm, nn.Identity):
        return ones, torch.zeros_like(ones)
    if isinstance(norm, _BatchNorm):
        if norm.training or norm.running_var is None or norm.running_mean is None:
            return None
        scale = torch.rsqrt(norm.running_var + norm.eps)
        scale = scale * norm.weight if norm.affine else scale
        return scale, (norm.bias if norm.affine else 0) - norm.running_mean * scale
    if hasattr(norm, "scale") and hasattr(norm, "shift"):  # `deploy.forms.Affine`
        return norm.scale, norm.shift
    return None


def _slopes(act: Any, ones: Tensor) -> tuple[Tensor, Tensor] | None:
    if isinstance(act, nn.Identity):
        return ones, ones
    if isinstance(act, nn.PReLU):
        return (ones, act.weight) if len(act.weight) == len(ones) else None
    if hasattr(act, "fall") and hasattr(act, "kink"):  # `deploy.forms.TwoSlopes`
        return act.fall + act.kink, act.fall
    return None


def biases(branches: Iterable[Any]) -> Tensor | None:
    """What biases of the branches add to the running sums, (K C,)."""
    own = [branch.bias for branch in branches]
    if own[0] is None:
        return None
    return torch.cat(list(accumulate(own)))


def _settings(branches: nn.ModuleList) -> tuple[list[int], int]:
    """Dilations and stride."""
    convolutions = _convolutions(branches)
    return [int(one.dilation[0]) for one in convolutions], int(convolutions[0].stride[0])


def _convolutions(branches: nn.ModuleList) -> list[Any]:
    return list(branches)


def _shifted(y: Tensor, branches: nn.ModuleList, fuse: nn.Module) -> Tensor:
    bias = biases(branches)
    out: Tensor = fuse(y if bias is None else y + bias.to(y.dtype).view(-1, 1, 1))
    return out
