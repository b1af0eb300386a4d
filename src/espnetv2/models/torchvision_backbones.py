"""MobileNetV2 and ShuffleNetV2 from torchvision as backbones of our segmenters and detectors."""

from __future__ import annotations

from collections.abc import Iterable

import torchvision
from torch import Tensor, nn

from espnetv2.errors import UserError
from espnetv2.layers.conv import conv

STRIDES = (2, 4, 8, 16, 32)

SHUFFLENET_V2_CHANNELS = {
    0.5: (24, 24, 48, 96, 192),
    1.0: (24, 24, 116, 232, 464),
    1.5: (24, 24, 176, 352, 704),
    2.0: (24, 24, 244, 488, 976),
}
"""Channels at the five strides by width; at stride 4 there is nothing but a max pooling."""

MOBILENET_V2_ENDS = (2, 4, 7, 14, 18)
"""Where in torchvision's list of layers each stride ends; the last 1x1 (1280) is left out."""


class StagedBackbone(nn.Module):
    """Stages in a row; the outputs of all, finest first (a `Backbone`).

    Paper: espnetv2 sec. 4.2, Fig. 7 (ShuffleNetV2 in the place of the EESP network).
    Shape: (B, in_channels, H, W) -> [(B, channels[i], ceil(H / strides[i]), ceil(W / strides[i]))]
    """

    def __init__(
        self, stages: Iterable[nn.Module], *, channels: tuple[int, ...], strides: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.channels = channels
        self.strides = strides

    def forward(self, image: Tensor) -> list[Tensor]:
        """See the class."""
        features = [image]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return features[1:]


def mobilenet_v2_backbone(
    width: float = 1.0, *, in_channels: int = 3, stages: int = 5
) -> StagedBackbone:
    """MobileNetV2 without its last 1x1 convolution, untrained.

    Args:
        width: Multiplier of all channels.
        in_channels: Of the image.
        stages: How many of the five strides to keep; a segmenter needs four.

    Raises:
        UserError: `stages` is not 1 to 5 or `width` is not positive.

    >>> mobilenet_v2_backbone(stages=4).channels
    (16, 24, 32, 96)
    """
    _check_stages(stages)
    if width <= 0:
        raise UserError(f"MobileNetV2 of width {width}: it must be positive")
    layers = torchvision.models.mobilenet_v2(width_mult=width).features
    if in_channels != 3:
        layers[0][0] = conv(in_channels, layers[0][0].out_channels, 3, stride=2)
    ends = MOBILENET_V2_ENDS[:stages]
    starts = (0, *ends[:-1])
    return StagedBackbone(
        (layers[start:end] for start, end in zip(starts, ends, strict=True)),
        channels=tuple(layers[end - 1].out_channels for end in ends),
        strides=STRIDES[:stages],
    )


def shufflenet_v2_backbone(
    width: float = 1.0, *, in_channels: int = 3, stages: int = 5
) -> StagedBackbone:
    """ShuffleNetV2 without its last 1x1 convolution, untrained.

    Args:
        width: 0.5, 1.0, 1.5 or 2.0.
        in_channels: Of the image.
        stages: How many of the five strides to keep; a segmenter needs four.

    Raises:
        UserError: `stages` is not 1 to 5 or there is no such `width`.

    >>> shufflenet_v2_backbone(2.0).channels
    (24, 24, 244, 488, 976)
    """
    _check_stages(stages)
    if width not in SHUFFLENET_V2_CHANNELS:
        known = ", ".join(map(str, SHUFFLENET_V2_CHANNELS))
        raise UserError(f"no ShuffleNetV2 of width {width}; choose from {known}")
    network = torchvision.models.get_model(
        f"shufflenet_v2_x{width:.1f}".replace(".", "_"), weights=None
    )
    if in_channels != 3:
        network.conv1[0] = conv(in_channels, network.conv1[0].out_channels, 3, stride=2)
    parts = (network.conv1, network.maxpool, network.stage2, network.stage3, network.stage4)
    return StagedBackbone(
        parts[:stages],
        channels=SHUFFLENET_V2_CHANNELS[width][:stages],
        strides=STRIDES[:stages],
    )


def _check_stages(stages: int) -> None:
    if not 1 <= stages <= len(STRIDES):
        raise UserError(f"stages={stages}: a backbone has 1 to {len(STRIDES)} stages")
