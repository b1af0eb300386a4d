"""Foreign segmenters under our contract: any size in, logits of that size out."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from espnetv2.layers.conv import crop, resize


class AnySize(nn.Module):
    """A segmenter that needs sizes of a certain multiple, run at any size.

    The image is padded at the right and at the bottom with zeros (mean colour), and the logits are
    enlarged to its size if the network leaves them smaller, then cut.

    Paper: espnetv2 sec. 4.2 (its rivals; none of this is in it).
    Shape: (B, in_channels, H, W) -> logits (B, num_classes, H, W)

    Args:
        network: Returns logits, or a dictionary with the logits at "out" as torchvision's do.
        multiple: What height and width must be a multiple of.

    >>> import torch
    >>> AnySize(nn.Conv2d(3, 5, 2, stride=2), multiple=2)(torch.zeros(1, 3, 33, 40)).shape
    torch.Size([1, 5, 33, 40])
    """

    def __init__(self, network: nn.Module, *, multiple: int = 1) -> None:
        super().__init__()
        self.network = network
        self.multiple = multiple

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        height, width = image.shape[-2:]
        # written so that a tracer sees the padded sides as multiples
        bottom = -(-height // self.multiple) * self.multiple - height
        right = -(-width // self.multiple) * self.multiple - width
        padded = F.pad(image, (0, right, 0, bottom))
        out = self.network(padded)
        logits: Tensor = out["out"] if isinstance(out, dict) else out
        return crop(resize(logits, (padded.shape[-2], padded.shape[-1])), (height, width))
