"""Equal forms of what XNNPACK cannot do, so that ExecuTorch hands nearly all of a network to it."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from espnetv2.deploy.forms import TwoSlopes, WindowMeans, WordEESP
from espnetv2.layers.conv import ConvNormAct
from espnetv2.layers.eru import EESP1d
from espnetv2.layers.pyramid_pool import PyramidPool
from espnetv2.layers.traced import known

_PERIOD, _KEPT = 3, 2
"""Pooling by 1.5: of every three rows two means are made, of the first two and the last two."""


def for_xnnpack(network: nn.Module) -> nn.Module:
    """An equal network; the given one stays as it is.

    Call it once on an example before tracing, so that it knows the sizes of its pools.

    Shape: as the network's

    Args:
        network: In the deploy form, with PReLUs.
    """
    changed = copy.deepcopy(network)
    with torch.no_grad():
        for parent in list(changed.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, WindowMeans):
                    setattr(parent, name, FixedMeans())
                elif isinstance(child, PyramidPool) and can_split(child):
                    setattr(parent, name, SummedPyramid(child))
    for unit in changed.modules():
        if isinstance(unit, EESP1d | WordEESP):  # XNNPACK has PReLUs of pictures only
            for act in unit.modules():
                if isinstance(act, TwoSlopes):
                    act.form = "relu"
    return changed


class SummedPyramid(nn.Module):
    """A pyramid pool whose scales are convolved one by one and added.

    The grouped convolution that joins the scales has one group per channel with one input per
    scale: it is a sum of depth-wise convolutions. Nothing is put side by side and shuffled.

    Shape: (B, in_channels, H, W) -> (B, out_channels, H, W)

    Args:
        pyramid: In the deploy form; it lends its layers.
    """

    def __init__(self, pyramid: PyramidPool) -> None:
        super().__init__()
        self.pyramid = pyramid
        scales, act, conv = len(pyramid.branches), pyramid.fuse.act, pyramid.mix.conv
        assert isinstance(act, TwoSlopes)
        rises, falls = (act.fall + act.kink).chunk(scales), act.fall.chunk(scales)
        self.slopes = nn.ModuleList(map(TwoSlopes, rises, falls))
        self.joins = nn.ModuleList(_one_scale(conv, scale) for scale in range(scales))
        self.act = pyramid.mix.act
        pyramid.fuse = pyramid.mix = nn.Identity()  # type: ignore[assignment]  # done here

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        own = self.pyramid
        x = own.reduce(x)  # (B, P, H, W)
        parts = zip(own.branches, own.ratios, self.slopes, self.joins, strict=True)
        joined = reduce(
            operator.add,
            (join(slope(own._view(x, branch, ratio))) for branch, ratio, slope, join in parts),
        )
        out: Tensor = own.out(own.project(self.act(joined)))
        return out


class FixedMeans(nn.Module):
    """`adaptive_avg_pool2d` of what XNNPACK has.

    | size / result | form                                                              |
    |---------------|-------------------------------------------------------------------|
    | whole         | average pooling                                                   |
    | 3 / 2         | a depth-wise convolution that makes the four means of 3x3 pixels, |
    |               | which are then put in their places                                |
    | else          | a product with the matrix of the means, for each axis; where      |
    |               | sizes stay free, the matrices are made in the graph               |

    Shape: (B, C, H, W) -> (B, C, *size)
    """

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """See the class."""
        height, width = x.shape[-2:]
        if not known(height, width, *size):
            rows, columns = _means(height, size[0]).to(x), _means(width, size[1]).to(x)
            return rows @ (x @ columns.T)
        if height % size[0] == 0 and width % size[1] == 0:
            kernel = (height // size[0], width // size[1])
            return x if kernel == (1, 1) else F.avg_pool2d(x, kernel, kernel)
        if (_KEPT * height, _KEPT * width) == (_PERIOD * size[0], _PERIOD * size[1]):
            weight = self._constant(f"four_{x.shape[1]}", _four_means, x, x.shape[1])
            return F.pixel_shuffle(F.conv2d(x, weight, stride=3, groups=x.shape[1]), _KEPT)
        x = F.linear(x, self._constant(f"means_{width}_{size[1]}", _means, x, width, size[1]))
        rows = self._constant(f"means_{height}_{size[0]}", _means, x, height, size[0])
        return F.linear(x.transpose(2, 3), rows).transpose(2, 3)

    def _constant(self, name: str, make: Any, like: Tensor, *sizes: int) -> Tensor:
        if name not in self._buffers:  # a tracer takes buffers for weights, not what it sees made
            self.register_buffer(name, make(*sizes).to(like))
        found = self._buffers[name]
        assert found is not None
        return found


def rewrite(graph_module: fx.GraphModule) -> None:
    """Write a traced graph's operations as equal ones that XNNPACK has, in place.

    Each operation that it has not cuts the network in two, between which tensors are copied:

    - its average pool leaves padding out of the mean, so pools over padded zeros become depth-wise
      convolutions;
    - its mean over the picture keeps the sides.
    """
    rules: dict[Any, Callable[[fx.GraphModule, fx.Node], fx.Node | None]] = {
        torch.ops.aten.avg_pool2d.default: _pool_as_convolution,
        torch.ops.aten.mean.dim: _mean_with_sides,
    }
    graph = graph_module.graph
    for node in list(graph.nodes):
        rule = rules.get(node.target)
        if rule is None:
            continue
        with graph.inserting_before(node):
            made = rule(graph_module, node)
        if made is not None:
            node.replace_all_uses_with(made)
            graph.erase_node(node)
    graph_module.recompile()


def _pool_as_convolution(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    given: list[Any] = list(node.args)
    x, kernel, stride, padding, *rest = given + [None] * (4 - len(given))
    if not padding or not any(padding) or rest not in ([], [False], [False, True]):
        return None  # `rest`: sizes rounded up, padding counted, another divisor
    like, graph = node.meta["val"], graph_module.graph
    channels, taps = like.shape[1], kernel[0] * kernel[-1]
    kind = str(like.dtype).removeprefix("torch.")
    name = f"mean_{channels}_{kernel[0]}x{kernel[-1]}_{kind}"
    if not hasattr(graph_module, name):
        weight = torch.full((channels, 1, *kernel), 1 / taps, dtype=like.dtype)
        graph_module.register_buffer(name, weight)
    held = graph.get_attr(name)
    held.meta["val"] = getattr(graph_module, name)  # quantisers ask for its shape
    arguments = (x, held, None, stride, padding, [1, 1], channels)
    made = graph.call_function(torch.ops.aten.conv2d.default, arguments)
    made.meta = dict(node.meta)
    return made


def _mean_with_sides(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    given: Any = node.args
    x, axes, *keep = given
    if len(x.meta["val"].shape) != 4 or sorted(a % 4 for a in axes) != [2, 3] or any(keep):
        return None
    graph = graph_module.graph
    mean = graph.call_function(torch.ops.aten.mean.dim, (x, [2, 3], True), dict(node.kwargs))
    mean.meta = node.meta | {"val": x.meta["val"].mean((2, 3), keepdim=True)}
    made = graph.call_function(torch.ops.aten.flatten.using_ints, (mean, 1))
    made.meta = dict(node.meta)
    return made


def can_split(pyramid: PyramidPool) -> bool:
    """Whether `SummedPyramid` can stand for it."""
    act, conv = pyramid.fuse.act, pyramid.mix.conv
    plain = isinstance(act, TwoSlopes) and isinstance(pyramid.fuse.norm, nn.Identity)
    return plain and isinstance(pyramid.mix, ConvNormAct) and conv.groups == conv.out_channels


def _one_scale(conv: nn.Conv2d, scale: int) -> nn.Conv2d:
    """What a grouped convolution does with every group's input number `scale`."""
    channels = conv.out_channels
    part = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=scale == 0)
    part = part.to(conv.weight)
    part.weight = nn.Parameter(conv.weight[:, scale : scale + 1].clone(), requires_grad=False)
    if scale == 0 and part.bias is not None:
        bias = torch.zeros_like(part.bias) if conv.bias is None else conv.bias.clone()
        part.bias = nn.Parameter(bias, requires_grad=False)
    return part


def _four_means(channels: int) -> Tensor:
    """Shape: (4 channels, 1, 3, 3), the means of every 2x2 corner, row by row."""
    weight = torch.zeros(_KEPT, _KEPT, _PERIOD, _PERIOD)
    for row in range(_KEPT):
        for column in range(_KEPT):
            weight[row, column, row : row + 2, column : column + 2] = 0.25
    return weight.view(-1, 1, _PERIOD, _PERIOD).repeat(channels, 1, 1, 1)


def _means(length: int, count: int) -> Tensor:
    """Shape: (count, length), one window of adaptive pooling a row."""
    place, own = torch.arange(length), torch.arange(count)[:, None]
    start, stop = own * length // count, ((own + 1) * length + count - 1) // count
    inside = F.relu(torch.minimum(place + 1, stop) - torch.maximum(place, start))  # 0 or 1
    return inside.float() / (stop - start).float()
