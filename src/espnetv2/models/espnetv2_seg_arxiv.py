"""ESPNetv2 for semantic segmentation as in the first version of the paper (arXiv v1).

Another network than the released one in `espnetv2_seg` (D26).

Paper: espnetv2 (arXiv v1) sec. 4.2; layers as in the authors' first repository.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from espnetv2.layers.conv import ConvNormAct, NormAct, conv, init_he, resize
from espnetv2.layers.eesp import EESP
from espnetv2.layers.pyramid_pool import PoolingPyramid
from espnetv2.models.backbone import Backbone
from espnetv2.models.espnetv2 import LAYOUTS, ESPNetv2Backbone


class ESPNetv2SegArxiv(nn.Module):
    """Any backbone, an EESP unit and a pooling pyramid at stride 8, then class maps upwards.

    Up-sampling goes to the next finer map's size; where sides are multiples of 16 this is the
    official doubling (D17).

    Paper: espnetv2 (arXiv v1) sec. 4.2.
    Shape: (B, in_channels, H, W) -> logits (B, num_classes, H, W)

    Args:
        backbone: Its first four outputs are used (strides 2, 4, 8, 16 in ESPNetv2).
        dropout: Probability of dropping a whole map before the class convolutions.
    """

    def __init__(self, backbone: Backbone, *, num_classes: int, dropout: float = 0.2) -> None:
        super().__init__()
        if len(backbone.channels) < 4:
            raise ValueError(f"{backbone.channels=}: the decoder needs four outputs")
        self.backbone = backbone
        stem, quarter, eighth, sixteenth = backbone.channels[:4]
        width = -(-eighth // 16) * 16  # what an EESP unit splits; ESPNetv2's own is that already
        beside = width + -(eighth + width) % 4
        self.project_16 = ConvNormAct(sixteenth, beside)
        self.unit = EESP(eighth + beside, width, max_receptive_field=7)
        self.pyramid = PoolingPyramid(width, width)
        self.classify_8 = nn.Sequential(nn.Dropout2d(dropout), conv(width, num_classes))
        self.norm_8 = NormAct(num_classes)
        self.classify_4 = ConvNormAct(quarter + num_classes, num_classes)
        self.classify_2 = nn.Sequential(
            nn.Dropout2d(dropout), conv(stem + num_classes, num_classes)
        )
        for name, part in self.named_children():
            if name != "backbone":
                part.apply(init_he)

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        return self.forward_with_auxiliary(image)[0]

    def forward_with_auxiliary(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and the auxiliary logits at stride 8 that training adds to the loss.

        Shape: (B, in_channels, H, W) -> (B, num_classes, H, W), (B, num_classes, H/8, W/8); see
            `enlarge_auxiliary`.
        """
        stem, quarter, eighth, sixteenth = self.backbone(image)[:4]
        coarse = resize(self.project_16(sixteenth), _size(eighth))
        auxiliary = self.classify_8(self.pyramid(self.unit(torch.cat([eighth, coarse], dim=1))))
        maps = resize(self.norm_8(auxiliary), _size(quarter))
        maps = resize(self.classify_4(torch.cat([quarter, maps], dim=1)), _size(stem))
        logits = self.classify_2(torch.cat([stem, maps], dim=1))
        return resize(logits, _size(image)), auxiliary


def enlarge_auxiliary(auxiliary: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring auxiliary logits to full size by three doublings, as the official training does.

    Shape: (B, classes, H/8, W/8) -> (B, classes, *size)
    """
    for divisor in (4, 2, 1):
        auxiliary = resize(auxiliary, (-(-size[0] // divisor), -(-size[1] // divisor)))
    return auxiliary


def espnetv2_seg_arxiv(
    size: str, *, num_classes: int = 20, in_channels: int = 3
) -> ESPNetv2SegArxiv:
    """The arXiv v1 segmenter on ESPNetv2 of one of the sizes in `espnetv2.LAYOUTS`."""
    backbone = ESPNetv2Backbone(LAYOUTS[size], in_channels=in_channels, stages=4)
    dropout = 0.1 if size == "s0_5" else 0.2  # D5
    return ESPNetv2SegArxiv(backbone, num_classes=num_classes, dropout=dropout)


def _size(x: Tensor) -> tuple[int, int]:
    return x.shape[-2], x.shape[-1]
