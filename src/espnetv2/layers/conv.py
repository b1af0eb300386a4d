"""Convolution, batch norm and PReLU in the combinations that every network here uses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espnetv2.layers.fused import conv_norm_act, free, norm_act
from espnetv2.layers.traced import known, surely_equal


class ConvNormAct(nn.Module):
    """Convolution without bias, batch norm and, unless `activate` is off, a PReLU per channel.

    The padding keeps the size at stride 1 and halves it, rounded up, at stride 2, for every
    dilation.

    Paper: espnetv2 sec. 3.3.
    Shape: (B, in_channels, H, W) -> (B, out_channels, ceil(H / stride), ceil(W / stride))

    Args:
        eps: Of the norm; ESPNet v1 needs 1e-3 (D11).

    Attributes:
        fused: Whether operators of `kernels/` run; see `eesp.use_kernels_`.
        frozen: What they apply behind the convolution, laid out once, for inference; with the
            activation that `then` is given, if there is none here.
    """

    fused = False
    frozen: Tensor | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 1,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        activate: bool = True,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.conv = conv(
            in_channels, out_channels, kernel_size, stride=stride, dilation=dilation, groups=groups
        )
        self.norm = nn.BatchNorm2d(out_channels, eps=eps)
        self.act = nn.PReLU(out_channels) if activate else nn.Identity()
        self.register_buffer("frozen", None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        if self.fused:
            frozen = None if isinstance(self.act, nn.Identity) else self._laid_out()
            return conv_norm_act(x, self.conv, self.norm, self.act, None, frozen)
        out: Tensor = self.act(self.norm(self.conv(x)))
        return out

    def then(self, x: Tensor, act: nn.Module, residual: Tensor | None) -> Tensor:
        """Act on the result plus a residual; of a module that does not activate.

        Shape: x as in `forward`, residual as its result -> the same
        """
        if self.fused and isinstance(self.act, nn.Identity) and free(self):
            return conv_norm_act(x, self.conv, self.norm, act, residual, self._laid_out())
        out = self(x)
        activated: Tensor = act(out if residual is None else out + residual)
        return activated

    def _laid_out(self) -> Tensor | None:
        return None if self.training or torch.is_grad_enabled() else self.frozen


class NormAct(nn.Module):
    """Batch norm and a PReLU per channel.

    Shape: (B, channels, H, W) -> the same

    Attributes:
        fused: Whether they are one operator in training; see `eesp.use_kernels_`.
    """

    fused = False

    def __init__(self, channels: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, eps=eps)
        self.act = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        if self.fused:
            return norm_act(x, self.norm, self.act)
        out: Tensor = self.act(self.norm(x))
        return out


def conv(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 1,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    bias: bool = False,
) -> nn.Conv2d:
    """A convolution that pads by half its reach, so that stride alone decides the size."""
    return nn.Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=dilation * (kernel_size // 2),
        dilation=dilation,
        groups=groups,
        bias=bias,
    )


def halve(x: Tensor) -> Tensor:
    """Average pooling 3x3, stride 2; padded zeros count in the mean (they are mean colour).

    Shape: (B, C, H, W) -> (B, C, ceil(H / 2), ceil(W / 2))
    """
    return F.avg_pool2d(x, kernel_size=3, stride=2, padding=1)


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear interpolation to (height, width) with corners aligned, as the official nets do.

    Shape: (B, C, H, W) -> (B, C, *size)
    """
    if surely_equal(tuple(x.shape[-2:]), tuple(size)):
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


def crop(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut the right and the bottom off.

    Shape: (B, C, H, W) -> (B, C, *size), not larger
    """
    height, width = size
    if known(height, width):
        return x[..., :height, :width]
    # a tracer must show that a slice lies inside, and cannot do so for sides rounded up and down
    return F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2]))


def init_he(module: nn.Module) -> None:
    """Initialise one module in place as the papers do; use with `Module.apply`.

    | parameter            | distribution                                     |
    |----------------------|--------------------------------------------------|
    | convolution weight   | normal, std sqrt(2 / (out_channels k k)) (He)    |
    | convolution bias     | 0                                                |
    | norm weight, bias    | 1, 0                                             |
    | linear weight, bias  | normal std 0.001, 0 (D27)                        |
    | PReLU slope          | 0.25 (torch's default)                           |

    The fan ignores groups, as torch's fan_out does, so depth-wise kernels start small (D13).
    """
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.001)
        nn.init.zeros_(module.bias)
