"""The EESP unit, its strided form with the image shortcut, and the equal unit of Fig. 1b."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from espnetv2.kernels.dispatch import Selection, choose
from espnetv2.layers.conv import ConvNormAct, NormAct, conv, halve
from espnetv2.layers.fused import (
    FrozenPyramid,
    epilogue_of,
    fits,
    free,
    pointwise,
    pyramid_norm_act,
)

Convolution = Literal["depthwise-dilated", "depthwise", "dilated"]
"""What the branches are made of; the paper's choice first, the others are its ablations."""


class EESP(nn.Module):
    """Extremely efficient spatial pyramid: reduce, split, transform, merge.

    A grouped 1x1 convolution shrinks the input to `out_channels / branches` maps. Depth-wise 3x3
    convolutions look at them with growing dilation, so the unit sees far at the price of near.
    Running sums of the branches (hierarchical feature fusion) remove the checkerboard that
    dilation leaves; a grouped 1x1, one group a branch, mixes the result.

    Paper: espnetv2 sec. 3.2, Fig. 1c.
    Shape: (B, in_channels, H, W) -> (B, out_channels, ceil(H / stride), ceil(W / stride))

    Args:
        branches: Parallel convolutions, K in the paper; also the groups g of both 1x1s.
        max_receptive_field: Widest view of a branch, in pixels; a branch that would see more
            falls back to dilation 1.
        activate: Whether to end with the residual and the unit's own PReLU; the strided unit
            does not.
        fusion: Hierarchical feature fusion; off for the paper's Table 4, row R1.
        grouped_reduction: Off for the plain 1x1 reduction of the paper's Table 5.
        convolution: What the branches are made of.

    Attributes:
        fused: Whether the branches run as one operator of `kernels/`; see `use_kernels_`.
        frozen: What that operator reads, laid out once; for inference.

    >>> EESP(32, 64, stride=2)(torch.zeros(1, 32, 9, 9)).shape
    torch.Size([1, 64, 5, 5])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        branches: int = 4,
        max_receptive_field: int = 7,
        activate: bool = True,
        fusion: bool = True,
        grouped_reduction: bool = True,
        convolution: Convolution = "depthwise-dilated",
    ) -> None:
        super().__init__()
        groups = branches if grouped_reduction else 1
        width = out_channels // branches
        if in_channels % groups or out_channels % branches or width % groups:
            raise ValueError(f"{in_channels=}, {out_channels=} do not split into {branches=}")
        self.in_channels, self.out_channels = in_channels, out_channels
        self.fusion = fusion
        self.reduce = ConvNormAct(in_channels, width, groups=groups)
        self.branches = nn.ModuleList(
            conv(
                width,
                width,
                3,
                stride=stride,
                dilation=1 if convolution == "depthwise" else dilation,
                groups=1 if convolution == "dilated" else width,
            )
            for dilation in branch_dilations(branches, max_receptive_field)
        )  # no norm, no activation: D15
        self.fuse = NormAct(out_channels)
        self.merge = ConvNormAct(out_channels, out_channels, groups=branches, activate=False)
        self.residual = activate and stride == 1 and in_channels == out_channels  # D4
        self.act = nn.PReLU(out_channels) if activate else nn.Identity()
        self.fused = False
        self.frozen: FrozenPyramid | None = None

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        if self.fused and free(self.branches, self.fuse):
            if self.frozen is None or self.training or torch.is_grad_enabled():
                fused = pyramid_norm_act(self.reduce(x), self.branches, self.fuse)
            else:
                fused = self.frozen(self.reduce(x))
        else:
            fused = self.fuse(torch.cat(self.views(x), dim=1))
        return self.merge.then(fused, self.act, x if self.residual else None)  # (B, C, H/s, W/s)

    def views(self, x: Tensor) -> list[Tensor]:
        """What the branches see after fusion, near first.

        Shape: (B, in_channels, H, W) -> `branches` times (B, C/K, H/s, W/s)
        """
        return _views(self.reduce(x), self.branches, fusion=self.fusion)


def use_kernels_(
    network: nn.Module, kernels: str, device: str, *, frozen: bool = False
) -> Selection:
    """Let EESP units, norms and activations of a network run as plain layers or fused operators.

    Weights and results stay as they are. Branches of units without fusion or with other
    convolutions, of the papers' ablations, remain plain layers, and so does what is exported or
    watched by hooks.

    Args:
        kernels: One of `kernels.dispatch.Kernels`.
        device: Where the network will run.
        frozen: The network is in evaluation and its weights will not change any more.

    Raises:
        UserError: `kernels` is unknown.

    >>> use_kernels_(EESP(16, 16), "auto", "cpu").fused
    False
    """
    choice = choose(kernels, torch.device(device).type)
    acts = _acts(network)
    for part in network.modules():
        if isinstance(part, (ConvNormAct, NormAct)):
            part.fused = choice.fused
        if isinstance(part, ConvNormAct):
            act = acts.get(part, part.act)
            knows = part in acts or not isinstance(act, nn.Identity)
            laid_out = part.fused and frozen and not part.training and pointwise(part.conv)
            with torch.no_grad():
                part.frozen = epilogue_of(part.conv, part.norm, act) if laid_out and knows else None
        elif isinstance(part, EESP):
            part.fused = choice.fused and part.fusion and fits(part.branches)
            laid_out = part.fused and frozen and not part.training
            part.frozen = FrozenPyramid(part.branches, part.fuse) if laid_out else None
    return choice


def _acts(network: nn.Module) -> dict[nn.Module, nn.Module]:
    """Activations behind modules that do not activate themselves."""
    found: dict[nn.Module, nn.Module] = {}
    for part in network.modules():
        if isinstance(part, EESP):
            found[part.merge] = part.act
        elif isinstance(part, StridedEESP) and part.image is not None:
            found[part.image[1]] = part.act
    return found


def _views(reduced: Tensor, branches: nn.ModuleList, *, fusion: bool) -> list[Tensor]:
    maps = [branch(reduced) for branch in branches]
    if fusion:
        for i in range(1, len(maps)):
            maps[i] = maps[i] + maps[i - 1]  # all branches, the first too: D2
    return maps


def branch_dilations(branches: int, max_receptive_field: int) -> list[int]:
    """Dilations of the branches, near first; a 3x3 kernel at dilation d sees 2 d + 1 pixels.

    Paper: espnetv2 sec. 3.3; the limits are the official list, not the formula (D14).

    >>> branch_dilations(4, 7)
    [1, 1, 2, 3]
    """
    return sorted(d if 2 * d + 1 <= max_receptive_field else 1 for d in range(1, branches + 1))


class StridedEESP(nn.Module):
    """Halves the map and widens it: pooled input beside a strided EESP, plus a look at the image.

    Paper: espnetv2 sec. 3.2, Fig. 2.
    Shape: x (B, unit.in_channels, H, W), image (B, image_channels, H/2, W/2)
        -> (B, unit.in_channels + unit.out_channels, H/2, W/2), sizes rounded up

    Args:
        unit: An EESP with stride 2 that does not activate.
        image_channels: Channels of the image shortcut; None for none.
    """

    def __init__(self, unit: EESP, *, image_channels: int | None = 3) -> None:
        super().__init__()
        out_channels = unit.in_channels + unit.out_channels
        self.unit = unit
        self.image = None if image_channels is None else ImageShortcut(image_channels, out_channels)
        self.act = nn.PReLU(out_channels)

    def forward(self, x: Tensor, image: Tensor | None = None) -> Tensor:
        """See the class; the image is already pooled to the size of the result."""
        out = torch.cat([halve(x), self.unit(x)], dim=1)
        if self.image is not None:
            return self.image.onto(out, image, self.act)
        activated: Tensor = self.act(out)
        return activated


class ImageShortcut(nn.Sequential):
    """Two convolutions that bring the pooled image to a stage's width.

    The little network between them is 3 wide whatever the image, as in the official code.

    Paper: espnetv2 sec. 3.2, Fig. 2 (red).
    Shape: (B, image_channels, H, W) -> (B, out_channels, H, W)
    """

    def __init__(self, image_channels: int, out_channels: int) -> None:
        super().__init__(
            ConvNormAct(image_channels, 3, kernel_size=3),
            ConvNormAct(3, out_channels, activate=False),
        )

    def onto(self, x: Tensor, image: Tensor | None, act: nn.Module) -> Tensor:
        """Add what the image gives to a stage's map, and act on it."""
        last: Any = self[1]
        if last.fused and free(self):
            activated: Tensor = last.then(self[0](image), act, x)
        else:
            activated = act(x + self(image))
        return activated


class EESPA(nn.Module):
    """EESP as drawn in Fig. 1b: a 1x1 convolution of its own behind every branch.

    Equal to the EESP that it is made of, to the last bit of algebra: K separate 1x1 convolutions
    are one grouped 1x1 with K groups. It exists to show that, and shares the other parameters
    with that unit.

    Paper: espnetv2 sec. 3.2, Fig. 1b.
    Shape: as the EESP's
    """

    def __init__(self, unit: EESP) -> None:
        super().__init__()
        branches = len(unit.branches)
        width = unit.out_channels // branches
        self.reduce, self.branches, self.fusion = unit.reduce, unit.branches, unit.fusion
        self.residual, self.act = unit.residual, unit.act
        self.fuses = nn.ModuleList(NormAct(width) for _ in range(branches))
        self.merges = nn.ModuleList(
            ConvNormAct(width, width, activate=False) for _ in range(branches)
        )
        for whole, parts in ((unit.fuse, self.fuses), (unit.merge, self.merges)):
            for i, part in enumerate(parts):
                _copy_slice(whole, part, i * width, width)
        self.to(next(unit.parameters())).train(unit.training)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        views = _views(self.reduce(x), self.branches, fusion=self.fusion)
        pairs = zip(self.fuses, self.merges, views, strict=True)
        merged = torch.cat([merge(fuse(view)) for fuse, merge, view in pairs], dim=1)
        out: Tensor = self.act(merged + x if self.residual else merged)
        return out


def _copy_slice(whole: nn.Module, part: nn.Module, start: int, width: int) -> None:
    """Fill `part` with the channels of `whole` from `start`."""
    values = whole.state_dict()
    part.load_state_dict({k: v[start : start + width] if v.dim() else v for k, v in values.items()})
