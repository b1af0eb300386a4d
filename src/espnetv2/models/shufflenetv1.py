"""ShuffleNet v1, all groups and widths: the network that the paper compares itself with first."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from espnetv2.errors import UserError
from espnetv2.layers.conv import ConvNormAct, init_he
from espnetv2.layers.shuffle import ShuffleUnit, round_up

STAGE_CHANNELS = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}
"""Groups -> channels of the first stage at width 1; the next two stages double them."""

STEM_CHANNELS = {0.25: 6, 0.5: 12, 0.75: 18, 1.0: 24, 1.5: 24, 2.0: 48}  # D20
"""Width -> channels of the first convolution, before rounding up to a multiple of the groups."""

REPEATS = (4, 8, 4)
"""Units per stage, the strided one included."""


@dataclass(frozen=True)
class Layout:
    """The channels of one network: of the first convolution and of the three stages."""

    stem: int
    stages: tuple[int, int, int]


def layout(groups: int, width: float) -> Layout:
    """The channels for a number of groups and a width factor.

    Stages are the paper's channels times the width. Only the stem is rounded up to a multiple of
    the groups, as the bottlenecks are: without that half of the published widths would not split.

    Paper: shufflenet Table 1.

    Raises:
        UserError: Groups or width are not among the published ones.

    >>> layout(3, 0.5)
    Layout(stem=12, stages=(120, 240, 480))
    """
    if groups not in STAGE_CHANNELS:
        raise UserError(f"ShuffleNet has no {groups=}; choose from {_listed(STAGE_CHANNELS)}")
    if width not in STEM_CHANNELS:
        raise UserError(f"ShuffleNet has no {width=}; choose from {_listed(STEM_CHANNELS)}")
    first = int(STAGE_CHANNELS[groups] * width)
    return Layout(round_up(STEM_CHANNELS[width], groups), (first, 2 * first, 4 * first))


class ShuffleNetV1Backbone(nn.Module):
    """The convolution, the max pooling and the three stages of ShuffleNet v1.

    Paper: shufflenet Table 1.
    Shape: (B, in_channels, H, W) -> [(B, channels[i], H / strides[i], W / strides[i])],
        sizes rounded up

    Args:
        groups: 1, 2, 3, 4 or 8.
        width: Factor on every channel count: 0.25, 0.5, 0.75, 1, 1.5 or 2.
        stages: How many outputs are wanted, 1 to 5; what lies behind the last is not built.
        shuffle: Off only for the ablation.
        squeeze_excitation: Whether every unit weighs its channels.

    Raises:
        UserError: Groups, width or stages are not among those that exist.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    def __init__(
        self,
        groups: int,
        width: float,
        *,
        in_channels: int = 3,
        stages: int = 5,
        shuffle: bool = True,
        squeeze_excitation: bool = False,
    ) -> None:
        super().__init__()
        if not 1 <= stages <= 5:
            raise UserError(f"ShuffleNet has stages 1 to 5, so {stages=} cannot be built")
        sizes = layout(groups, width)
        self.channels = (sizes.stem, sizes.stem, *sizes.stages)[:stages]
        self.strides = (2, 4, 8, 16, 32)[:stages]
        self.stem = ConvNormAct(in_channels, sizes.stem, kernel_size=3, stride=2, activate=False)
        self.stages = nn.ModuleList()
        before = sizes.stem
        for index, out_channels in enumerate(self.channels[2:]):
            self.stages.append(
                nn.Sequential(
                    *(
                        ShuffleUnit(
                            out_channels if unit else before,
                            out_channels,
                            groups=groups,
                            stride=1 if unit else 2,
                            # too few channels enter the first unit to be worth splitting
                            reduce_groups=None if index or unit else 1,
                            shuffle=shuffle,
                            squeeze_excitation=squeeze_excitation,
                        )
                        for unit in range(REPEATS[index])
                    )
                )
            )
            before = out_channels
        self.apply(init_he)

    def forward(self, image: Tensor) -> list[Tensor]:
        """See the class."""
        features = [F.relu(self.stem(image))]  # (B, stem, H/2, W/2)
        if len(self.strides) > 1:
            features.append(F.max_pool2d(features[0], 3, stride=2, padding=1))
        for stage in self.stages:
            features.append(stage(features[-1]))
        return features


class ShuffleNetV1(nn.Module):
    """ShuffleNet v1 classifier: the backbone, a global average, one linear map.

    Paper: shufflenet Table 1; training is not described there beyond ResNeXt's recipe.
    Shape: (B, in_channels, H, W) -> (B, num_classes)

    Args:
        backbone: Its last output is classified.
        num_classes: 0 leaves the classifier out.
    """

    def __init__(self, backbone: ShuffleNetV1Backbone, *, num_classes: int = 1000) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier: nn.Module = nn.Identity()
        self.reset_classifier(num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        return self.forward_head(self.forward_features(image))

    def forward_features(self, image: Tensor) -> Tensor:
        """The last stage's output, (B, C, ceil(H / 32), ceil(W / 32))."""
        features: list[Tensor] = self.backbone(image)
        return features[-1]

    def forward_head(self, features: Tensor, *, pre_logits: bool = False) -> Tensor:
        """Logits (B, num_classes) from the last stage's output, or the averages before them."""
        averages = features.mean(dim=(2, 3))  # (B, C)
        if pre_logits:
            return averages
        logits: Tensor = self.classifier(averages)
        return logits

    def get_classifier(self) -> nn.Module:
        """The last linear map."""
        return self.classifier

    def reset_classifier(self, num_classes: int) -> None:
        """Put a fresh linear map on top; 0 classes leave the averages as they are."""
        channels = self.backbone.channels[-1]
        self.classifier = nn.Linear(channels, num_classes) if num_classes else nn.Identity()  # D23
        init_he(self.classifier)


def shufflenetv1(
    groups: int,
    width: float,
    *,
    num_classes: int = 1000,
    in_channels: int = 3,
    shuffle: bool = True,
    squeeze_excitation: bool = False,
) -> ShuffleNetV1:
    """Build the classifier for a number of groups (1, 2, 3, 4, 8) and a width (0.25 to 2).

    Paper: shufflenet Table 1; `shuffle` Table 3; `squeeze_excitation` Table 5.

    Raises:
        UserError: Groups or width are not among the published ones.
    """
    backbone = ShuffleNetV1Backbone(
        groups,
        width,
        in_channels=in_channels,
        shuffle=shuffle,
        squeeze_excitation=squeeze_excitation,
    )
    return ShuffleNetV1(backbone, num_classes=num_classes)


def _listed(choices: dict[int, int] | dict[float, int]) -> str:
    return ", ".join(f"{choice:g}" for choice in choices)
