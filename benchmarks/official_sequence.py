"""The classifier's layers in the order of the authors' code, on our network's weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from espnetv2.layers.conv import halve


class OfficialSequence(nn.Module):
    """Branch by branch, sum by sum; the image is pooled again from full size in every unit."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Logits."""
        backbone = self.network.backbone
        x = backbone.stem(image)
        for stage in backbone.stages:
            pooled = halve(x)
            out = torch.cat([pooled, _unit(stage.down.unit, x)], dim=1)
            if stage.down.image is not None:
                look = image
                while look.shape[2] != pooled.shape[2]:  # from the full image, in every unit
                    look = halve(look)
                out = out + stage.down.image(look)
            x = stage.down.act(out)
            for unit in stage.units:
                x = _unit(unit, x)
        return self.network.forward_head(backbone.final(x))


def _unit(unit: nn.Module, x: Tensor) -> Tensor:
    """The EESP unit as the authors wrote it: branch by branch, sum by sum, one concatenation."""
    reduced = unit.reduce(x)
    maps = [unit.branches[0](reduced)]
    for branch in list(unit.branches)[1:]:
        view = branch(reduced)
        maps.append(view + maps[-1])
    expanded = unit.merge.norm(unit.merge.conv(unit.fuse(torch.cat(maps, 1))))
    if unit.residual:
        expanded = expanded + x
    return unit.act(expanded)
