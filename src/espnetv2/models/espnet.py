"""ESPNet v1 for segmentation: the encoder ESPNet-C and the full network with its decoder."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from espnetv2.errors import UserError
from espnetv2.layers.conv import ConvNormAct, NormAct, conv, crop, halve, init_he
from espnetv2.layers.esp import EPS, ESP

Skip = Literal["stem", "stem+image"]
"""What the decoder takes from stride 2: the stem's output, or its norm with the image beside it."""

STEM, LEVEL2, LEVEL3 = 16, 64, 128
"""Output channels of the three levels, before anything is put beside them."""


class ESPNetBackbone(nn.Module):
    """Stages of ESPNet v1 at strides 2, 4 and 8.

    Two levels of ESP units; each level hands on its first and its last map, and the image,
    pooled to size, enters again before every reduction.

    Paper: espnet.
    Shape: (B, in_channels, H, W) -> [(B, channels[i], ceil(H / strides[i]), ceil(W / strides[i]))]

    Args:
        p: ESP units at stride 4, beside the strided one.
        q: ESP units at stride 8, beside the strided one.
        skip: What the finest output is: 16 channels of the stem, or these and the image,
            normalised together.

    >>> [tuple(x.shape[1:]) for x in ESPNetBackbone(q=3)(torch.zeros(1, 3, 64, 96))]
    [(16, 32, 48), (131, 16, 24), (256, 8, 12)]
    """

    def __init__(
        self, *, p: int = 2, q: int = 8, in_channels: int = 3, skip: Skip = "stem"
    ) -> None:
        super().__init__()
        if p < 1 or q < 1:
            raise UserError(f"ESPNet with p={p}, q={q}: each level needs at least one ESP unit")
        if skip not in ("stem", "stem+image"):
            raise UserError(f"unknown skip {skip!r}; choose from 'stem', 'stem+image'")
        self.skip = skip
        self.strides = (2, 4, 8)
        self.channels = (
            STEM if skip == "stem" else STEM + in_channels,
            2 * LEVEL2 + in_channels,
            2 * LEVEL3,
        )
        self.stem = ConvNormAct(in_channels, STEM, kernel_size=3, stride=2, eps=EPS)  # D11
        self.norm1 = NormAct(STEM + in_channels, eps=EPS)
        self.down2 = ESP(STEM + in_channels, LEVEL2, stride=2)
        self.level2 = nn.Sequential(*(ESP(LEVEL2, LEVEL2) for _ in range(p)))
        self.norm2 = NormAct(2 * LEVEL2 + in_channels, eps=EPS)
        self.down3 = ESP(2 * LEVEL2 + in_channels, LEVEL3, stride=2)
        self.level3 = nn.Sequential(*(ESP(LEVEL3, LEVEL3) for _ in range(q)))
        self.norm3 = NormAct(2 * LEVEL3, eps=EPS)
        self.apply(init_he)

    def forward(self, image: Tensor) -> list[Tensor]:
        """See the class."""
        half = halve(image)
        stem = self.stem(image)  # (B, 16, H/2, W/2)
        with_image = self.norm1(torch.cat([stem, half], dim=1))
        first = self.down2(with_image)  # (B, 64, H/4, W/4)
        last = self.level2(first)
        middle = self.norm2(torch.cat([last, first, halve(half)], dim=1))  # last unit first: D32
        first = self.down3(middle)  # (B, 128, H/8, W/8)
        last = self.level3(first)
        coarse = self.norm3(torch.cat([first, last], dim=1))  # here it comes last: D32
        return [stem if self.skip == "stem" else with_image, middle, coarse]


class ESPNetC(nn.Module):
    """ESPNet-C: the encoder with a 1x1 classifier, trained first and on labels reduced 8 times.

    Paper: espnet.
    Shape: (B, in_channels, H, W) -> logits (B, num_classes, ceil(H / 8), ceil(W / 8))

    Args:
        p: See `ESPNetBackbone`; the released networks have 2.
        q: See `ESPNetBackbone`; the released networks have 3, 5 or 8.
        skip: See `ESPNetBackbone`; only matters under a decoder.
    """

    def __init__(
        self,
        *,
        p: int = 2,
        q: int = 8,
        num_classes: int = 20,
        in_channels: int = 3,
        skip: Skip = "stem",
    ) -> None:
        super().__init__()
        self.backbone = ESPNetBackbone(p=p, q=q, in_channels=in_channels, skip=skip)
        self.classify = conv(self.backbone.channels[-1], num_classes)
        self.apply(init_he)

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        logits: Tensor = self.classify(self.backbone(image)[-1])
        return logits


class ESPNet(nn.Module):
    """ESPNet: class maps of ESPNet-C, enlarged three times with help from the finer stages.

    Everything in the decoder is as wide as there are classes, so it costs 15 thousand parameters.
    The maps double by transposed convolutions 2x2; where a stage's size was odd, the surplus row
    or column is cut off.

    Paper: espnet.
    Shape: (B, in_channels, H, W) -> logits (B, num_classes, H, W)

    Args:
        p: See `ESPNetBackbone`; the released networks have 2.
        q: See `ESPNetBackbone`; the released networks have 3, 5 or 8.
        skip: What joins at stride 2: "stem" as in the released Cityscapes weights,
            "stem+image" as in the released CamVid weights (D33).

    >>> ESPNet(q=3, num_classes=12)(torch.zeros(1, 3, 45, 61)).shape
    torch.Size([1, 12, 45, 61])
    """

    def __init__(
        self,
        *,
        p: int = 2,
        q: int = 8,
        num_classes: int = 20,
        in_channels: int = 3,
        skip: Skip = "stem",
    ) -> None:
        super().__init__()
        self.encoder = ESPNetC(
            p=p, q=q, num_classes=num_classes, in_channels=in_channels, skip=skip
        )
        fine, middle, _ = self.encoder.backbone.channels
        self.norm3 = nn.BatchNorm2d(num_classes, eps=EPS)  # D11
        self.double3 = _double(num_classes)
        self.project2 = conv(middle, num_classes)
        self.norm2 = NormAct(2 * num_classes, eps=EPS)
        self.merge2 = ESP(2 * num_classes, num_classes)
        self.double2 = _double(num_classes)
        self.norm1 = NormAct(num_classes, eps=EPS)
        self.merge1 = ConvNormAct(num_classes + fine, num_classes, kernel_size=3, eps=EPS)
        self.double1 = _double(num_classes)
        self.apply(_init)

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        fine, middle, coarse = self.encoder.backbone(image)
        maps = self.norm3(self.encoder.classify(coarse))  # (B, N, H/8, W/8)
        maps = _crop(self.double3(maps), middle)  # (B, N, H/4, W/4)
        maps = self.merge2(self.norm2(torch.cat([self.project2(middle), maps], dim=1)))
        maps = _crop(self.norm1(self.double2(maps)), fine)  # (B, N, H/2, W/2)
        maps = self.merge1(torch.cat([maps, fine], dim=1))
        return _crop(self.double1(maps), image)  # (B, N, H, W)


def _double(channels: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(channels, channels, kernel_size=2, stride=2, bias=False)


def _crop(maps: Tensor, like: Tensor) -> Tensor:
    """Cut the right and the bottom to the size of `like`; a doubled odd half is one too large."""
    return crop(maps, (like.shape[-2], like.shape[-1]))  # D16


def _init(module: nn.Module) -> None:
    """He's rule also for 2x2 stride-2 transposed convolutions: an output sees one tap per map."""
    if isinstance(module, nn.ConvTranspose2d):
        nn.init.normal_(module.weight, std=math.sqrt(2 / module.in_channels))
    else:
        init_he(module)
