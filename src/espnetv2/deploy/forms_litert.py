"""Equal forms of what LiteRT's converter would turn over and over."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from espnetv2.deploy.forms import TwoSlopes
from espnetv2.deploy.forms_xnnpack import for_xnnpack


def for_litert(network: nn.Module) -> nn.Module:
    """An equal network; the given one stays as it is.

    LiteRT computes on XNNPACK, and so does ExecuTorch, whose forms are taken over. Call it once on
    an example before tracing, so that it knows the sizes of its pools.

    Shape: as the network's

    Args:
        network: In the deploy form, with PReLUs.
    """
    changed = for_xnnpack(network)
    for parent in list(changed.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, TwoSlopes) and not child.plain:
                setattr(parent, name, WideSlopes(child))
    return changed


class WideSlopes(nn.Module):
    """Two slopes per channel, as constants that have the axes of a picture.

    The converter moves channels behind the sides. Constants that are only seen with fewer axes it
    cannot move, and then turns the picture before and after them instead.

    Shape: (B, C, ...) -> the same

    Args:
        slopes: Of which `rise` is not 1 everywhere.
    """

    def __init__(self, slopes: TwoSlopes) -> None:
        super().__init__()
        self.slopes = slopes
        self.kink = nn.Buffer(slopes.kink.view(1, -1, 1, 1).clone())
        self.fall = nn.Buffer(slopes.fall.view(1, -1, 1, 1).clone())

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        if x.dim() != 4:
            out: Tensor = self.slopes(x)
            return out
        return F.relu(x) * self.kink + x * self.fall
