"""The ShuffleNet unit: grouped 1x1 convolutions with a channel shuffle between them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espnetv2.layers.conv import ConvNormAct, conv, halve


class ShuffleUnit(nn.Module):
    """Bottleneck whose 1x1 convolutions are grouped, with a shuffle so that groups still talk.

    A grouped 1x1 shrinks, a depth-wise 3x3 looks around (no activation after it), a grouped 1x1
    expands. At stride 1 the input is added. At stride 2 the average-pooled input is appended, so
    the convolutions make only the channels that are missing.

    Paper: shufflenet sec. 3.2, Fig. 2b and 2c.
    Shape: (B, in_channels, H, W) -> (B, out_channels, ceil(H / stride), ceil(W / stride))

    Args:
        groups: Of both 1x1 convolutions and of the shuffle.
        stride: 1 (then `in_channels` equals `out_channels`) or 2.
        reduce_groups: Of the first 1x1 alone, if it differs; the network's very first is 1.
        shuffle: Off only for the ablation of shufflenet Table 3.
        squeeze_excitation: Whether to weigh the channels before the shortcut joins.

    Raises:
        ValueError: The channels do not split into the groups, or the shortcut does not fit.

    >>> ShuffleUnit(24, 240, groups=3, stride=2, reduce_groups=1)(torch.zeros(1, 24, 9, 9)).shape
    torch.Size([1, 240, 5, 5])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        groups: int,
        stride: int = 1,
        reduce_groups: int | None = None,
        shuffle: bool = True,
        squeeze_excitation: bool = False,
    ) -> None:
        super().__init__()
        made = out_channels if stride == 1 else out_channels - in_channels
        first = groups if reduce_groups is None else reduce_groups
        if made % groups or in_channels % first:
            raise ValueError(f"{in_channels} -> {made} channels do not split into {groups=}")
        if stride == 1 and in_channels != out_channels:
            raise ValueError(f"stride 1 adds {in_channels=} to {out_channels=}: make them equal")
        width = round_up(out_channels // 4, groups)  # D20
        self.shuffle_groups = groups if shuffle else 1
        self.stride = stride
        self.reduce = ConvNormAct(in_channels, width, groups=first, activate=False)
        self.depthwise = ConvNormAct(
            width, width, kernel_size=3, stride=stride, groups=width, activate=False
        )
        self.expand = ConvNormAct(width, made, groups=groups, activate=False)
        self.excite = SqueezeExcitation(made) if squeeze_excitation else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        mixed = channel_shuffle(F.relu(self.reduce(x)), self.shuffle_groups)
        made: Tensor = self.excite(self.expand(self.depthwise(mixed)))
        if self.stride == 1:
            return F.relu(made + x)
        return F.relu(torch.cat([made, halve(x)], dim=1))


class SqueezeExcitation(nn.Module):
    """Weighs each channel by a number in (0, 1) that is computed from all channel means.

    Paper: shufflenet sec. 4.4 (Table 5), with the usual reduction of 16.
    Shape: (B, channels, H, W) -> the same
    """

    def __init__(self, channels: int, *, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.squeeze = conv(channels, hidden, bias=True)
        self.excite = conv(hidden, channels, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        means = x.mean(dim=(2, 3), keepdim=True)  # (B, C, 1, 1)
        return x * torch.sigmoid(self.excite(F.relu(self.squeeze(means))))


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Deal the channels like cards: new channel i g + j is channel i of group j.

    The next grouped convolution then sees something of every group.

    Paper: shufflenet sec. 3.1, Fig. 1c.
    Shape: (B, C, H, W) -> the same; `groups` divides C

    >>> channel_shuffle(torch.arange(6.0).view(1, 6, 1, 1), 2).flatten().tolist()
    [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]
    """
    if groups == 1:
        return x
    batch, channels, height, width = x.shape
    hands = x.reshape(batch, groups, channels // groups, height, width)
    return hands.transpose(1, 2).reshape(batch, channels, height, width)


def round_up(channels: int, multiple: int) -> int:
    """The smallest multiple that is not less.

    >>> round_up(17, 4)
    20
    """
    return -(-channels // multiple) * multiple
