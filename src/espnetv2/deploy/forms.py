"""What the deploy form is made of where the train form's layers are not enough."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from espnetv2.data.preprocess import Preprocessing
from espnetv2.layers.eru import TAPS, EESP1d, GroupedLinear
from espnetv2.layers.pyramid_pool import SMALLEST_VIEW
from espnetv2.layers.traced import known

Activation = Literal["prelu", "relu"]
"""How a slope is written: as one PReLU, or as a ReLU and the input, weighed and added."""


class TwoSlopes(nn.Module):
    """One slope per channel for positive values and one for negative ones.

    A PReLU is the case `rise` = 1. Slopes of any sign and size occur in trained networks, so
    "the larger of x and a x" would be wrong. Stock engines are faster with a ReLU than with a
    PReLU; both forms say the same.

    Shape: (B, C, ...) -> the same

    Args:
        rise: (C,), factor of positive values.
        fall: (C,), factor of negative values.
    """

    def __init__(self, rise: Tensor, fall: Tensor, *, form: Activation = "prelu") -> None:
        super().__init__()
        self.form = form
        self.plain = bool((rise == 1).all())
        self.fall = nn.Buffer(fall.clone())
        self.kink = nn.Buffer(rise - fall)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        if self.plain and self.form == "prelu":
            return F.prelu(x, self.fall)
        shape = (-1, *[1] * (x.dim() - 2))
        return F.relu(x) * self.kink.view(shape) + x * self.fall.view(shape)


class Affine(nn.Module):
    """A norm that no convolution could take in: a factor and a summand per channel.

    Shape: (B, C, ...) -> the same
    """

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.scale = nn.Buffer(scale.clone())
        self.shift = nn.Buffer(shift.clone())

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        shape = (-1, *[1] * (x.dim() - 2))
        return x * self.scale.view(shape) + self.shift.view(shape)


class Normalize(nn.Module):
    """The arithmetic of a preprocessing convention, so that plain RGB goes into the graph.

    What remains outside is resizing. Zero padding makes it impossible to fold this into the first
    convolution: padded pixels are mean colour, not black.

    Shape: (B, 3, H, W) RGB, 0 to 255, uint8 or float -> float, as the network wants it
    """

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        mean = torch.tensor(preprocessing.mean, dtype=torch.float64)
        std = torch.tensor(preprocessing.std, dtype=torch.float64)
        scale = 1 / (preprocessing.unit * std * preprocessing.divisor)
        shift = -mean / (std * preprocessing.divisor)
        self.flip = preprocessing.order == "bgr"
        self.scale = nn.Buffer(scale.float().view(-1, 1, 1))
        self.shift = nn.Buffer(shift.float().view(-1, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """See the class."""
        x = pixels.to(self.scale.dtype)
        if self.flip:
            x = x.flip(1)
        return x * self.scale + self.shift


class WindowMeans(nn.Module):
    """`adaptive_avg_pool2d` of a few gathers, which every runtime has, for sizes known or not.

    Shape: (B, C, H, W) -> (B, C, *size)

    Args:
        scale: The smallest size / input that is asked for, which bounds the windows of sizes that
            are not known.
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.longest = max(SMALLEST_VIEW, math.ceil(1 / scale) + 1)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """See the class."""
        return self._means(self._means(x, 2, size[0]), 3, size[1])

    def _means(self, x: Tensor, axis: int, count: int) -> Tensor:
        length = x.shape[axis]
        sizes_known = known(length, count)
        if sizes_known and length % count == 0:
            step = length // count
            kernel = (step, 1) if axis == 2 else (1, step)
            return F.avg_pool2d(x, kernel, kernel) if step > 1 else x
        place = torch.arange(count, device=x.device)
        start = place * length // count
        stop = ((place + 1) * length + count - 1) // count
        longest = _longest_window(length, count) if sizes_known else self.longest
        shape = (-1, 1) if axis == 2 else (-1,)
        total = torch.zeros((), dtype=x.dtype, device=x.device)
        for step in range(longest):
            taken = x.index_select(axis, (start + step).clamp(max=length - 1))
            total = total + taken * (start + step < stop).to(x.dtype).view(shape)
        return total / (stop - start).to(x.dtype).view(shape)


class WordEESP(nn.Module):
    """The deploy form of an EESP unit that sees one word at a time.

    The running sum of scaled copies is one copy, scaled; the norms are in the maps around them.

    Shape: (T, B, in_features), context -> (T, B, copies * out_features), context
    """

    def __init__(self, unit: EESP1d) -> None:
        super().__init__()
        self.copies, self.share, self.branches = unit.copies, unit.share, unit.branches
        self.past, self.reduced = unit.past, unit.reduced
        self.residual = unit.residual
        self.reduce, self.merge, self.act = unit.reduce, unit.merge, unit.act
        scale, shift = scale_shift(unit.reduce_act.norm)
        self._scale_outputs(self.reduce, scale)
        self.reduce_shift, self.reduce_act = nn.Buffer(shift), unit.reduce_act.act
        scale, shift = scale_shift(unit.fuse.norm)
        shape = (unit.copies, unit.branches, unit.share)
        self.scales = nn.Buffer(unit.taps[..., TAPS // 2].cumsum(dim=1) * scale.view(shape))
        self.fuse_shift, self.fuse_act = nn.Buffer(shift), unit.fuse.act
        scale, shift = scale_shift(unit.merge_norm)
        self._scale_outputs(self.merge, scale)
        self.merge_shift = nn.Buffer(shift)

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        length, batch, _ = x.shape
        words = x.flatten(0, 1)
        reduced = self.reduce_act(self.reduce(words) + self.reduce_shift)
        maps = reduced.view(-1, self.copies, 1, self.share) * self.scales
        fused = self.fuse_act(maps.flatten(1) + self.fuse_shift)
        merged = self.merge(fused) + self.merge_shift
        if self.residual:
            merged = merged + words.repeat(1, self.copies)
        out: Tensor = self.act(merged)
        return out.view(length, batch, -1), context

    @staticmethod
    def _scale_outputs(linear: GroupedLinear, scale: Tensor) -> None:
        # outputs are ordered (copy, group, own), columns of a group's weight (copy, own)
        groups, copies = linear.groups, linear.copies
        columns = scale.view(copies, groups, -1).transpose(0, 1).flatten(1)  # (g, copies own)
        linear.weight.mul_(columns[:, None, :])


def _longest_window(length: int, count: int) -> int:
    # a window touches one element more than it is long, or two where its ends fall between
    rest = length % count
    return length // count + (2 if count % rest else 1)


def scale_shift(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """What a norm does in evaluation: x * scale + shift, both (C,)."""
    assert isinstance(norm, _BatchNorm)
    assert norm.running_var is not None
    assert norm.running_mean is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale
