"""ESPNetv2: the backbone and the classifier, in six widths, and the papers' ablations of them.

Paper: espnetv2 sec. 3.3, Table 2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from espnetv2.layers.conv import ConvNormAct, halve, init_he
from espnetv2.layers.eesp import EESP, Convolution, StridedEESP


@dataclass(frozen=True)
class Layout:
    """The numbers of one ESPNetv2.

    Attributes:
        channels: Of the stem and of the four stages.
        final_channels: Of the last 1x1 convolution.
        units: EESP units behind the strided unit of each stage.
        receptive_fields: Widest view of a branch, in pixels, by the resolution of a unit's input:
            strided units take the limit of the stage before theirs (D14).
        branches: Parallel convolutions in a unit, K in the paper.
        image_shortcut: Whether strided units look at the image; off in Table 4, rows R1 and R2.
        fusion: Hierarchical feature fusion; off in Table 4, row R1.
        grouped_reduction: Off in Table 5.
        convolution: What the branches are made of.
    """

    channels: tuple[int, int, int, int, int]
    final_channels: int
    units: tuple[int, int, int, int] = (0, 3, 7, 3)
    receptive_fields: tuple[int, int, int, int, int] = (13, 11, 9, 7, 5)
    branches: int = 4
    image_shortcut: bool = True
    fusion: bool = True
    grouped_reduction: bool = True
    convolution: Convolution = "depthwise-dilated"


LAYOUTS: dict[str, Layout] = {
    "s0_5": Layout((16, 32, 64, 128, 256), 1024),
    "s1_0": Layout((32, 64, 128, 256, 512), 1024),
    "s1_25": Layout((32, 80, 160, 320, 640), 1024),
    "s1_5": Layout((32, 96, 192, 384, 768), 1024),
    "s1_75": Layout((32, 112, 224, 448, 896), 1280),  # D25
    "s2_0": Layout((32, 128, 256, 512, 1024), 1280),
}
"""The six published widths (Table 2); no others satisfy the divisibility of the groups."""

ABLATIONS: dict[str, Layout] = {
    "s1_0_no_fusion_no_shortcut": replace(LAYOUTS["s1_0"], fusion=False, image_shortcut=False),
    "s1_0_no_fusion": replace(LAYOUTS["s1_0"], fusion=False),
    "s1_0_no_shortcut": replace(LAYOUTS["s1_0"], image_shortcut=False),
    "s1_0_plain_reduction": replace(LAYOUTS["s1_0"], grouped_reduction=False),
    "s0_5_plain_reduction": replace(LAYOUTS["s0_5"], grouped_reduction=False),
    "s1_0_depthwise": replace(LAYOUTS["s1_0"], convolution="depthwise"),
    "s1_0_dilated": replace(LAYOUTS["s1_0"], convolution="dilated"),
    "s2_0_depthwise": replace(LAYOUTS["s2_0"], convolution="depthwise"),
}
"""The rows of Tables 4 and 5, and the convolution types of the CVPR version."""


class ESPNetv2Backbone(nn.Module):
    """The stages of ESPNetv2; returns the output of each, finest first.

    The image shortcut pools the image once per level: level 3's copy is level 2's pooled once
    more, the same numbers as pooling from full size in every unit.

    Paper: espnetv2 sec. 3.3, Table 2.
    Shape: (B, in_channels, H, W) -> [(B, channels[i], ceil(H / strides[i]), ...)]

    Args:
        stages: How many outputs to build, the stem's included; 4 for segmentation. The fifth
            includes the last two convolutions.
        image_at_last: Whether the fifth stage looks at the image too: the detector does, the
            classifier does not (D3).
    """

    def __init__(
        self, layout: Layout, *, in_channels: int = 3, stages: int = 5, image_at_last: bool = False
    ) -> None:
        super().__init__()
        if not 1 <= stages <= 5:
            raise ValueError(f"{stages=} is not between 1 and 5")
        channels = layout.channels[:stages]
        self.stem = ConvNormAct(in_channels, channels[0], kernel_size=3, stride=2)
        self.stages = nn.ModuleList(
            Stage(
                layout,
                index=i,
                image_channels=in_channels if i < 3 or image_at_last else None,
            )
            for i in range(len(channels) - 1)
        )
        self.final = None
        if stages == 5:
            self.final = nn.Sequential(
                ConvNormAct(channels[4], channels[4], kernel_size=3, groups=channels[4]),
                ConvNormAct(channels[4], layout.final_channels, groups=layout.branches),
            )
            channels = (*channels[:4], layout.final_channels)
        self.channels = channels
        self.strides = tuple(2 ** (i + 1) for i in range(stages))
        self.apply(init_he)

    def forward(self, image: Tensor) -> list[Tensor]:
        """See the class."""
        features = [self.stem(image)]
        shrunk = halve(image)
        for stage in self.stages:
            if stage.sees_image:
                shrunk = halve(shrunk)  # (B, in_channels, H/s, W/s) of this stage
            features.append(stage(features[-1], shrunk))
        if self.final is not None:
            features[-1] = self.final(features[-1])
        return features


class Stage(nn.Module):
    """A strided unit and the EESP units behind it.

    Paper: espnetv2 Table 2.
    Shape: x (B, C, H, W), image (B, image_channels, H/2, W/2) -> (B, 2C, H/2, W/2)
    """

    def __init__(self, layout: Layout, *, index: int, image_channels: int | None) -> None:
        super().__init__()
        before, channels = layout.channels[index : index + 2]
        near, own = layout.receptive_fields[index : index + 2]
        unit = partial(
            EESP,
            branches=layout.branches,
            fusion=layout.fusion,
            grouped_reduction=layout.grouped_reduction,
            convolution=layout.convolution,
        )
        self.sees_image = layout.image_shortcut and image_channels is not None
        self.down = StridedEESP(
            unit(before, channels - before, stride=2, max_receptive_field=near, activate=False),
            image_channels=image_channels if self.sees_image else None,
        )
        self.units = nn.Sequential(
            *(
                unit(channels, channels, max_receptive_field=own)
                for _ in range(layout.units[index])
            ),
        )

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        """See the class."""
        out: Tensor = self.units(self.down(x, image))
        return out


class ESPNetv2(nn.Module):
    """The classifier: backbone, global average, dropout, linear.

    Paper: espnetv2 sec. 4.1.
    Shape: (B, in_channels, H, W) -> (B, num_classes)

    Args:
        dropout: Probability before the linear layer; the paper names none (D5).
    """

    def __init__(
        self,
        layout: Layout,
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.backbone = ESPNetv2Backbone(layout, in_channels=in_channels)
        self.dropout = nn.Dropout(dropout)
        self.reset_classifier(num_classes)

    def forward_features(self, image: Tensor) -> Tensor:
        """The last feature map, (B, final_channels, H/32, W/32)."""
        return self.backbone(image)[-1]  # type: ignore[no-any-return]

    def forward_head(self, features: Tensor, *, pre_logits: bool = False) -> Tensor:
        """Logits (B, num_classes) of a feature map, or what the linear layer sees."""
        pooled: Tensor = self.dropout(F.adaptive_avg_pool2d(features, 1).flatten(1))
        return pooled if pre_logits else self.classifier(pooled)

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        return self.forward_head(self.forward_features(image))

    def get_classifier(self) -> nn.Module:
        """The linear layer."""
        return self.classifier

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the linear layer by a fresh one; 0 classes leave the pooled features."""
        self.num_classes = num_classes
        self.classifier: nn.Module = nn.Identity()
        if num_classes:
            self.classifier = nn.Linear(self.backbone.channels[-1], num_classes)
            init_he(self.classifier)
