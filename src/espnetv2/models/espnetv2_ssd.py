"""Single-shot detection on ESPNetv2: six maps, a top-down path, 1x1 heads.

Paper: ssd sec. 2; espnetv2 (CVPR version) for the backbone; numbers from the EdgeNets code.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from espnetv2.errors import UserError, unknown
from espnetv2.layers.conv import ConvNormAct, conv, resize
from espnetv2.layers.pyramid_pool import PyramidPool
from espnetv2.models.backbone import Backbone
from espnetv2.models.espnetv2 import LAYOUTS, ESPNetv2Backbone

EXTRA_CHANNELS = (512, 256, 128)
"""Of the maps behind the backbone, at strides 64 and 128 and over the whole picture."""
PYRAMID_SCALES = ((2.0, 1.0), (2.0, 1.0, 0.5), (2.0, 1.0, 0.5, 0.25), (2.0, 1.0, 0.5, 0.25))
"""Of the top-down path, coarsest step first."""
ANCHORS = 6
"""Boxes at one place of a map."""


class RawDetections(NamedTuple):
    """What a detector says about each prior, before softmax and coding.

    Attributes:
        scores: (B, N, 1 + classes) logits, background first.
        offsets: (B, N, 4) from the priors; `tasks/detect.py` has their meaning.
    """

    scores: Tensor
    offsets: Tensor


class SSD(nn.Module):
    """A detector on any backbone with strides 8, 16, 32 last.

    Two strided steps and a global average add coarser maps. A top-down path of pyramid poolings
    brings context back to the finer four; the coarsest two are read as they are. The network is
    the same for every input size, which decides only the priors.

    Paper: ssd sec. 2.1.
    Shape: (B, in_channels, H, W) -> scores (B, N, num_classes), offsets (B, N, 4), the N priors
        of `espnetv2.tasks.priors` for (H, W)

    Args:
        num_classes: With background, which is class 0.
        extra_channels: Of the three maps behind the backbone.
        smallest_prior: Side of the smallest square prior, a share of the shorter side of the
            input. It changes no tensor; whoever decodes asks the network for it.

    Raises:
        UserError: If the backbone's last strides are not 8, 16, 32.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        num_classes: int = 21,
        extra_channels: tuple[int, int, int] = EXTRA_CHANNELS,
        smallest_prior: float = 0.1,
    ) -> None:
        super().__init__()
        if tuple(backbone.strides[-3:]) != (8, 16, 32):
            raise UserError(
                f"a detector needs a backbone whose last strides are 8, 16, 32; this one's are "
                f"{', '.join(map(str, backbone.strides))}"
            )
        self.num_classes = num_classes
        self.smallest_prior = smallest_prior
        self.backbone = backbone
        fine = tuple(backbone.channels[-3:])
        wide, narrow, whole = extra_channels
        self.extras = nn.ModuleList(
            [_strided(fine[-1], wide), _strided(wide, narrow), _whole_picture(narrow, whole)]
        )
        # coarse to fine: the map above, the map of this step
        path = ((narrow, wide), (wide, fine[2]), (fine[2], fine[1]), (fine[1], fine[0]))
        self.pyramid = nn.ModuleList(  # D44
            PyramidPool(above + own, own, width=own // 5, scales=scales)
            for (above, own), scales in zip(path, PYRAMID_SCALES, strict=True)
        )
        self.heads = nn.ModuleList(
            Head(channels, num_classes=num_classes) for channels in (*fine, *extra_channels)
        )
        for part in (self.extras, self.pyramid, self.heads):
            part.apply(init_xavier)

    def forward(self, image: Tensor) -> RawDetections:
        """See the class."""
        maps = self.feature_maps(image)
        read = [head(features) for head, features in zip(self.heads, maps, strict=True)]
        return RawDetections(
            torch.cat([raw.scores for raw in read], dim=1),
            torch.cat([raw.offsets for raw in read], dim=1),
        )

    def feature_maps(self, image: Tensor) -> list[Tensor]:
        """The six maps that the heads read, finest first."""
        maps = list(self.backbone(image)[-3:])
        for extra in self.extras:
            maps.append(extra(maps[-1]))
        for step, pool in enumerate(self.pyramid):
            level = 3 - step  # strides 64, 32, 16, 8
            fine = maps[level]
            coarse = resize(maps[level + 1], (fine.shape[-2], fine.shape[-1]))
            maps[level] = pool(torch.cat([coarse, fine], dim=1))
        return maps


class Head(nn.Module):
    """Reads one map: scores and offsets of its boxes.

    Paper: ssd sec. 2.1, with 1x1 instead of 3x3 convolutions as in the EdgeNets code.
    Shape: (B, channels, H, W) -> scores (B, H W A, num_classes), offsets (B, H W A, 4)
    """

    def __init__(self, channels: int, *, num_classes: int) -> None:
        super().__init__()
        self.scores = conv(channels, ANCHORS * num_classes, bias=True)  # 1x1: D43
        self.offsets = conv(channels, ANCHORS * 4, bias=True)

    def forward(self, features: Tensor) -> RawDetections:
        """See the class."""
        return RawDetections(
            _by_place(self.scores(features)),  # (B, H W A, num_classes)
            _by_place(self.offsets(features)),  # (B, H W A, 4)
        )


def espnetv2_ssd(
    size: str, *, num_classes: int = 21, in_channels: int = 3, smallest_prior: float = 0.1
) -> SSD:
    """The detector on ESPNetv2 of one of the sizes in `espnetv2.LAYOUTS`; "s2_0" was published.

    Paper: espnetv2 (CVPR version); released as EdgeNets "ESPNetv2-SSD".

    Args:
        size: Key of `espnetv2.LAYOUTS`.
        num_classes: With background: 21 for VOC, 81 for COCO.
        in_channels: Of the picture.
        smallest_prior: See `SSD`.

    Raises:
        UserError: If there is no such size.

    >>> espnetv2_ssd("s0_5", num_classes=3).eval()(torch.zeros(1, 3, 64, 64)).offsets.shape
    torch.Size([1, 522, 4])
    """
    if size not in LAYOUTS:
        raise unknown("size", size, LAYOUTS)
    backbone = ESPNetv2Backbone(LAYOUTS[size], in_channels=in_channels, image_at_last=True)
    backbone.apply(init_xavier)
    return SSD(backbone, num_classes=num_classes, smallest_prior=smallest_prior)


def init_xavier(module: nn.Module) -> None:
    """Initialise a convolution's weight uniformly after Xavier, for use with `Module.apply`.

    He's wider distribution did not converge, says the official code (D8). Everything else keeps
    what it has.
    """
    if isinstance(module, nn.Conv2d):
        nn.init.xavier_uniform_(module.weight)  # D8


def _strided(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        ConvNormAct(in_channels, in_channels, kernel_size=3, stride=2, groups=in_channels),
        ConvNormAct(in_channels, out_channels),
    )


def _whole_picture(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), conv(in_channels, out_channels), nn.ReLU())


def _by_place(x: Tensor) -> Tensor:
    """(B, A V, H, W) -> (B, H W A, V)."""
    # one step at a time, since a tracer cannot divide the product of unknown sides
    x = x.permute(0, 2, 3, 1)
    return x.view(*x.shape[:3], ANCHORS, x.shape[3] // ANCHORS).flatten(1, 3)
