"""Equal forms of what ncnn has not, or has in a slower way."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from espnetv2.deploy.forms import Normalize, TwoSlopes
from espnetv2.deploy.forms_xnnpack import for_xnnpack
from espnetv2.layers.eesp import EESP

_ROUNDING = 1e-6


def for_ncnn(network: nn.Module) -> nn.Module:
    """An equal network; the given one stays as it is. A train form comes back unchanged.

    Call it once on an example before tracing, so that it knows the sizes of its pools.

    Shape: as the network's

    Args:
        network: In the deploy form, with PReLUs.
    """
    if any(isinstance(module, _BatchNorm) for module in network.modules()):
        return network
    changed = for_xnnpack(network)  # pools of sizes that do not divide as products
    with torch.no_grad():
        for parent in list(changed.modules()):
            if isinstance(parent, EESP):
                _sign_within(parent)
            for name, child in list(parent.named_children()):
                if isinstance(child, Normalize):
                    setattr(parent, name, NormalizeByConvolution(child))
    return changed


class SignedPReLU(nn.Module):
    """A PReLU of the input, or of the input times -1, a channel each.

    With one slope of 1, whichever it is, two slopes are such a PReLU, up to a sign that the
    weights behind it take: two operations instead of four.

    Shape: (B, C, ...) -> the same

    Args:
        sign: (C,), 1 or -1.
        slope: (C,), of the negative part.
    """

    def __init__(self, sign: Tensor, slope: Tensor) -> None:
        super().__init__()
        self.sign = nn.Buffer(sign.view(-1, 1, 1).clone())
        self.slope = nn.Buffer(slope.clone())

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return F.prelu(x * self.sign, self.slope)


class NormalizeByConvolution(nn.Module):
    """`Normalize` as a 1x1 convolution, which also puts the colours in order.

    Shape: (B, 3, H, W) RGB, 0 to 255 -> the same, as the network wants it
    """

    def __init__(self, normalize: Normalize) -> None:
        super().__init__()
        order = torch.eye(3).flip(0) if normalize.flip else torch.eye(3)
        weight = order * normalize.scale.view(-1, 1)
        self.weight = nn.Buffer(weight[:, :, None, None].clone())
        self.shift = nn.Buffer(normalize.shift.flatten().clone())

    def forward(self, pixels: Tensor) -> Tensor:
        """See the class."""
        return F.conv2d(pixels.to(self.weight.dtype), self.weight, self.shift)


def _sign_within(unit: EESP) -> None:
    """The activation between the running sums and the expansion, which alone reads it."""
    act = unit.fuse.act
    if not isinstance(act, TwoSlopes) or act.plain:
        return
    rise, fall = act.fall + act.kink, act.fall
    turned = fall == 1
    if not bool((turned | ((rise - 1).abs() <= _ROUNDING)).all()):
        return
    sign = torch.where(turned, -1.0, 1.0).to(fall)
    unit.fuse.add_module("act", SignedPReLU(sign, torch.where(turned, rise, fall)))
    weight = unit.merge.conv.weight  # (out, in / groups, 1, 1)
    groups = unit.merge.conv.groups
    weight.view(groups, -1, weight.shape[1]).mul_(sign.view(groups, 1, -1))
