"""FCN-8s on VGG-16, the heavy baseline of the segmentation tables."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers

from espnetv2.layers.conv import conv, init_he, resize

POOL3, POOL4, POOL5 = 17, 24, 31
"""Where in torchvision's VGG-16 strides 8, 16 and 32 end."""


class FCN8s(nn.Module):
    """Class scores at strides 32, 16 and 8, added coarse to fine and enlarged to the image.

    Differs from the published network in small things: padding keeps sizes, where the published
    one pads the image by 100 pixels and cuts, and enlarging is bilinear, which there is only how
    the transposed convolutions start.

    Paper: espnetv2 sec. 4.2 (as a rival).
    Shape: (B, in_channels, H, W) -> logits (B, num_classes, H, W), H and W from 32 up
    """

    def __init__(self, *, num_classes: int = 20, in_channels: int = 3) -> None:
        super().__init__()
        layers = make_layers(cfgs["D"])
        if in_channels != 3:
            layers[0] = conv(in_channels, 64, 3, bias=True)
        self.stride8 = layers[:POOL3]
        self.stride16 = layers[POOL3:POOL4]
        self.stride32 = layers[POOL4:POOL5]
        self.classifier = nn.Sequential(
            conv(512, 4096, 7, bias=True),
            nn.ReLU(inplace=True),
            nn.Dropout2d(),
            conv(4096, 4096, bias=True),
            nn.ReLU(inplace=True),
            nn.Dropout2d(),
            conv(4096, num_classes, bias=True),
        )
        self.score8 = conv(256, num_classes, bias=True)
        self.score16 = conv(512, num_classes, bias=True)
        self.apply(init_he)

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        eighth = self.stride8(image)  # (B, 256, H/8, W/8)
        sixteenth = self.stride16(eighth)  # (B, 512, H/16, W/16)
        scores = self.classifier(self.stride32(sixteenth))  # (B, num_classes, H/32, W/32)
        for fine in (self.score16(sixteenth), self.score8(eighth)):
            scores = fine + resize(scores, (fine.shape[-2], fine.shape[-1]))
        return resize(scores, (image.shape[-2], image.shape[-1]))
