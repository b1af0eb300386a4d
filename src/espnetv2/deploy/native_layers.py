"""Layers of this package as steps of the native engine; each gives the name of its result."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from espnetv2.deploy.native_steps import IMAGE, Slopes, Writer, relu, slopes_of
from espnetv2.layers.pyramid_pool import SMALLEST_VIEW
from espnetv2.layers.shuffle import SqueezeExcitation

MOST_LANES = 16  # of a vector, in any instruction set
MOST_SOURCES = 64  # of a step, in a model file


def conv_norm_act(w: Writer, x: str, layer: Any) -> str:
    """A `ConvNormAct`: depth-wise ones with the loop for these, where the map allows it."""
    conv = layer.conv
    if conv.groups == conv.in_channels == conv.out_channels and conv.groups > 1 and x != IMAGE:
        return w.depthwise(x, conv, act=layer.act)
    return w.conv(x, conv, act=layer.act)


def _views(w: Writer, reduced: str, unit: Any) -> str:
    """What the branches of a unit see of the reduced map, after fusion, norm and slopes."""
    branches: list[Any] = list(unit.branches)
    if branches[0].groups == branches[0].in_channels:
        return w.pyramid(
            [reduced], branches, running=unit.fusion, norm=unit.fuse.norm, act=unit.fuse.act
        )
    maps: list[str] = []
    for branch in branches:
        before = maps[-1] if maps and unit.fusion else None
        maps.append(w.conv(reduced, branch, residual=before))
    joined = w.simple("concat", *maps)
    return w.combine(joined, norm=unit.fuse.norm, act=unit.fuse.act)


def eesp(w: Writer, x: str, unit: Any) -> str:
    """An `EESP` unit."""
    views = _views(w, conv_norm_act(w, x, unit.reduce), unit)
    residual = x if unit.residual else None
    return w.conv(views, unit.merge.conv, act=unit.act, residual=residual)


def strided(w: Writer, x: str, down: Any, shortcut: str | None) -> str:
    """A `StridedEESP`: pooled input beside the unit, the shortcut and the slopes of each apart.

    Args:
        shortcut: The first convolution of the shrunk image, if the unit looks at it.
    """
    slopes = slopes_of(down.act)
    assert slopes is not None
    kept = down.unit.in_channels
    first, second = _cut(slopes, slice(kept)), _cut(slopes, slice(kept, None))
    views = _views(w, conv_norm_act(w, x, down.unit.reduce), down.unit)
    if shortcut is None:
        pooled = w.halve(x, kept, act=first)
        return w.simple("concat", pooled, w.conv(views, down.unit.merge.conv, act=second))
    near, far = (
        _outputs(down.image[1].conv, slice(kept)),
        _outputs(down.image[1].conv, slice(kept, None)),
    )
    pooled = w.conv(shortcut, near, residual=w.halve(x, kept), act=first)
    merged = w.conv(shortcut, far, residual=w.conv(views, down.unit.merge.conv), act=second)
    return w.simple("concat", pooled, merged)


def esp(w: Writer, x: str, unit: Any) -> str:
    """An `ESP` unit of ESPNet v1."""
    reduced = w.conv(x, unit.reduce)
    branches: list[Any] = list(unit.branches)
    maps = [w.conv(reduced, branches[0])]
    for index, branch in enumerate(branches[1:]):
        maps.append(w.conv(reduced, branch, residual=maps[-1] if index else None))
    joined = w.simple("concat", *maps)
    other = x if unit.residual else None
    return w.combine(joined, other=other, norm=unit.out.norm, act=unit.out.act)


def shuffle_unit(w: Writer, x: str, unit: Any, before: int, channels: int) -> str:
    """A `ShuffleUnit`."""
    made = w.conv(x, unit.reduce.conv, act=relu(unit.reduce.conv.out_channels))
    if unit.shuffle_groups > 1:
        made = w.simple("shuffle", made, groups=unit.shuffle_groups)
    made = w.depthwise(made, unit.depthwise.conv)
    expand = unit.expand.conv
    plain = not isinstance(unit.excite, SqueezeExcitation)
    if unit.stride == 1 and plain:
        return w.conv(made, expand, residual=x, act=relu(channels))
    made = w.conv(
        made,
        expand,
        act=relu(expand.out_channels) if plain else None,
        lanes_of=x if unit.stride == 1 else None,
    )
    if not plain:
        gate = _excitation(w, made, unit.excite)
        other = x if unit.stride == 1 else None
        made = w.combine(made, gate=gate, other=other, act=relu(expand.out_channels))
    if unit.stride == 1:
        return made
    return w.simple("concat", made, w.halve(x, before, act=relu(before)))


def _excitation(w: Writer, x: str, layer: Any) -> str:
    hidden = w.conv(w.simple("mean", x), layer.squeeze, act=relu(layer.squeeze.out_channels))
    return w.simple("logistic", w.conv(hidden, layer.excite, lanes_of=x))


def gated_skip(w: Writer, x: str, skip: Any) -> tuple[str, str]:
    """A `GatedSkip`: the convolution and its gate."""
    body = _grouped(w, x, skip.body)
    gate = w.conv(w.simple("mean", x), skip.gate, lanes_of=body)
    return body, w.simple("logistic", gate)


def _grouped(w: Writer, x: str, layer: Any) -> str:
    """A convolution in many narrow groups, as depth-wise ones of picked channels.

    Source k holds input k of every group. Branch j sums over them what output j of every group
    is, so that a group is a lane; a shuffle gives the outputs their names back. Where a plain
    convolution multiplies as little, it is one.
    """
    conv = layer.conv
    each, made = conv.in_channels // conv.groups, conv.out_channels // conv.groups
    plain = made * math.ceil(conv.groups / MOST_LANES) >= conv.groups
    if plain or each == made == 1 or each > MOST_SOURCES:
        return conv_norm_act(w, x, layer)
    sources = [w.gather(x, range(place, conv.in_channels, each)) for place in range(each)]
    branches = [_outputs(conv, slice(place, None, made)) for place in range(made)]
    slopes = slopes_of(layer.act)
    dealt = None
    if slopes is not None:
        first, second = (torch.cat([one[place::made] for place in range(made)]) for one in slopes)
        dealt = (first, second)
    return w.simple("shuffle", w.pyramid(sources, branches, act=dealt), groups=made)


def pyramid_pool(w: Writer, x: str, pyramid: Any, *, lanes_of: str | None = None) -> str:
    """A `PyramidPool`, scale by scale."""
    x = conv_norm_act(w, x, pyramid.reduce)
    slopes = slopes_of(pyramid.fuse.act)
    assert slopes is not None
    width = pyramid.reduce.conv.out_channels
    scales = list(zip(pyramid.branches, pyramid.ratios, strict=True))
    small = {  # first, so that all that is of the size of x comes in one go, band by band
        place: w.depthwise(w.adapt(x, like=x, scale=_size(ratio)), branch)
        for place, (branch, ratio) in enumerate(scales)
        if ratio[0] < ratio[1]
    }
    views = []
    for place, (branch, ratio) in enumerate(scales):
        own = _cut(slopes, slice(place * width, (place + 1) * width))
        if place in small:
            views.append(w.resize(small[place], like=x, act=own))
        elif ratio[0] == ratio[1]:
            views.append(w.depthwise(x, branch, act=own))
        else:
            large = w.depthwise(w.resize(x, like=x, scale=_size(ratio)), branch)
            views.append(w.adapt(large, like=x, act=own))
    x = w.pyramid(views, [pyramid.mix.conv], act=pyramid.mix.act)
    act = pyramid.out.act if hasattr(pyramid.out, "act") else None
    return w.conv(x, pyramid.project, act=act, lanes_of=lanes_of)


def _size(ratio: tuple[int, int]) -> tuple[int, int, int]:
    return (*ratio, SMALLEST_VIEW)


def pooling_pyramid(w: Writer, x: str, pyramid: Any) -> str:
    """A `PoolingPyramid`."""
    views, shrunk = [x], x
    for branch in pyramid.branches:
        assert isinstance(branch, nn.Conv2d)
        shrunk = w.halve(shrunk, branch.in_channels)
        views.append(w.resize(w.depthwise(shrunk, branch), like=x))
    return conv_norm_act(w, w.simple("concat", *views), pyramid.project)


# ---- parts of layers --------------------------------------------------------------------------


def _cut(slopes: Slopes, part: slice) -> Slopes:
    return slopes[0][part], slopes[1][part]


def halves(slopes: Slopes, part: int) -> Slopes:
    """The slopes of the first or second half of the channels."""
    half = len(slopes[0]) // 2
    return _cut(slopes, slice(part * half, (part + 1) * half))


def _outputs(conv: Any, part: slice) -> nn.Conv2d:
    """Some outputs of a convolution, as one of its own without groups of its kind."""
    weight: Tensor = conv.weight[part]
    made = nn.Conv2d(
        weight.shape[1],
        len(weight),
        conv.kernel_size,
        stride=conv.stride,
        padding=conv.padding,
        dilation=conv.dilation,
        bias=conv.bias is not None,
    )
    made.weight = nn.Parameter(weight.contiguous())
    if conv.bias is not None:
        made.bias = nn.Parameter(conv.bias[part].contiguous())
    return made
