"""ESPNetv2 for semantic segmentation: the decoder of the released weights (EdgeNets).

Paper: espnetv2 (CVPR version), sec. 4.3; the decoder's blocks are dicenet's.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from espnetv2.layers.conv import ConvNormAct, NormAct, conv, init_he, resize
from espnetv2.layers.pyramid_pool import PyramidPool
from espnetv2.models.backbone import Backbone
from espnetv2.models.espnetv2 import LAYOUTS, ESPNetv2Backbone


class ESPNetv2Seg(nn.Module):
    """Any backbone with a top-down path of pyramid poolings: coarse map up, gated fine map added.

    Maps of different size are matched by interpolation, so that any picture works; where sides
    are multiples of 16 this is the official network (D16).

    Paper: espnetv2 (CVPR version) sec. 4.3.
    Shape: (B, in_channels, H, W) -> logits (B, num_classes, H, W)

    Args:
        backbone: Its first four outputs are used (strides 2, 4, 8, 16 in ESPNetv2).
        base_width: Unit of the decoder's widths: 16 for VOC and Cityscapes, 32 for COCO in the
            official code, which looks it up by data set name (D6).
    """

    def __init__(self, backbone: Backbone, *, num_classes: int, base_width: int = 16) -> None:
        super().__init__()
        if len(backbone.channels) < 4:
            raise ValueError(f"{backbone.channels=}: the decoder needs four outputs")
        self.backbone = backbone
        fine_to_coarse = backbone.channels[:4]
        widths = (4 * base_width, 3 * base_width, 2 * base_width)
        scale_width = max(1, min(num_classes // 2, base_width))
        ins = (fine_to_coarse[3], *widths)
        outs = (*widths, num_classes)
        self.pyramids = nn.ModuleList(
            PyramidPool(i, o, width=scale_width, activate=k < 3)
            for k, (i, o) in enumerate(zip(ins, outs, strict=True))
        )
        self.skips = nn.ModuleList(
            GatedSkip(channels, width)
            for channels, width in zip(reversed(fine_to_coarse[:3]), widths, strict=True)
        )
        self.norms = nn.ModuleList(NormAct(width) for width in widths)
        for part in (self.pyramids, self.skips, self.norms):
            part.apply(init_he)

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        *fine, x = self.backbone(image)[:4]
        for pyramid, skip, norm in zip(self.pyramids, self.skips, self.norms, strict=False):
            beside = skip(fine.pop())  # (B, width, H/s, W/s)
            x = norm(beside + resize(pyramid(x), (beside.shape[-2], beside.shape[-1])))
        return resize(self.pyramids[-1](x), (image.shape[-2], image.shape[-1]))


class GatedSkip(nn.Module):
    """A cheap 3x3 convolution of an encoder map, gated per channel by its global average.

    Paper: dicenet (efficient point-wise convolution).
    Shape: (B, in_channels, H, W) -> (B, out_channels, H, W)
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.gate = conv(in_channels, out_channels)
        self.body = ConvNormAct(
            in_channels, out_channels, kernel_size=3, groups=math.gcd(in_channels, out_channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        gate = self.gate(F.adaptive_avg_pool2d(x, 1)).sigmoid()  # (B, out_channels, 1, 1)
        gated: Tensor = self.body(x) * gate
        return gated


def espnetv2_seg(
    size: str, *, num_classes: int = 21, in_channels: int = 3, base_width: int = 16
) -> ESPNetv2Seg:
    """The segmenter on ESPNetv2 of one of the sizes in `espnetv2.LAYOUTS`."""
    backbone = ESPNetv2Backbone(LAYOUTS[size], in_channels=in_channels, stages=4)
    return ESPNetv2Seg(backbone, num_classes=num_classes, base_width=base_width)
