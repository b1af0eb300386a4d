"""The deploy form for engines that compute on blocks of 16 channels, such as ONNX Runtime."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espnetv2.deploy.forms import Affine, TwoSlopes
from espnetv2.layers.conv import ConvNormAct
from espnetv2.layers.eesp import EESP, StridedEESP
from espnetv2.models.espnetv2 import ESPNetv2, Stage

LANES = 16
"""Channels of a block: 16 floats are one AVX-512 register, two of AVX2, four of NEON."""

_SPARE = 1.5  # padding may widen a branch by half; beyond, the plain layout is faster
_FLAT = 1e-6  # a kink this small is not divided by
_LEVEL = 1e-4  # nor is a rise this small


class Bend(nn.Module):
    """An activation with one factor: its other one is in the weights behind it.

    Shape: (B, C, ...) -> the same

    Args:
        slope: (C,), factor of the input beside its positive part.
    """

    def __init__(self, slope: Tensor) -> None:
        super().__init__()
        self.slope = nn.Buffer(slope.clone())

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return F.relu(x) + x * self.slope.view(-1, *[1] * (x.dim() - 2))


def in_blocks(network: nn.Module, *, move: bool = True) -> nn.Module:
    """An equal network whose EESP units fill whole blocks; the given one stays as it is.

    Such engines keep a tensor in blocks only while every width is a multiple of 16, and pay for
    each change of layout. A branch of 24 channels becomes 32, of which 8 are zero. Grouped 1x1
    convolutions whose groups are narrower than a block become wider groups with zeros in them.

    The idea is described in docs/deploy/onnx.md.
    Shape: as the network's

    Args:
        network: As `fold` makes it, with `activation="relu"`.
        move: Whether to move one of an activation's two factors into the weights behind it. Values
            between the layers are then on other scales, which float does not mind; narrower types
            do.
    """
    changed = copy.deepcopy(network).double()
    kind = next(iter(network.parameters())).dtype
    with torch.no_grad():
        for module in list(changed.modules()):
            if isinstance(module, EESP):
                _widen(module)
                if move:
                    _move_within(module)
        for module in list(changed.modules()) if move else ():
            if isinstance(module, StridedEESP) and module.image is not None:
                _move_along([module.image[0], module.image[1].conv])
        for trunk in list(_trunks(changed)) if move else ():
            _move_along(trunk)
        _regroup(changed)
    return changed.to(kind).requires_grad_(False)


def with_prelu(network: nn.Module, *, move: bool = True) -> nn.Module:
    """An equal network for engines that compute a PReLU within the convolution before it.

    OpenVINO is one; it keeps channels last, so that no width has to fill blocks. Narrow groups of
    1x1 convolutions become wider all the same.

    Shape: as the network's

    Args:
        network: As `fold` makes it, with `activation="relu"`.
        move: Whether to move the factors of positive values, which are 1 but where a norm's scale
            was negative, into the weights behind them. Without, those activations are no PReLUs.
    """
    changed = copy.deepcopy(network).double()
    kind = next(iter(network.parameters())).dtype
    with torch.no_grad():
        for module in list(changed.modules()):
            if isinstance(module, EESP) and move:
                _move_rise(module)
        for module in changed.modules():
            if isinstance(module, TwoSlopes):
                rise = module.fall + module.kink
                module.plain = torch.allclose(rise, torch.ones_like(rise), rtol=0, atol=_FLAT)
                module.form = "prelu"  # which those that are not plain do not heed
        _regroup(changed)
    return changed.to(kind).requires_grad_(False)


def _widen(unit: Any) -> None:
    """Pad the branches of an EESP unit to whole blocks."""
    reduce, merge = unit.reduce.conv, unit.merge.conv
    width, out_channels = reduce.out_channels, merge.out_channels
    depthwise = all(branch.groups == width for branch in unit.branches)
    groups, padded = _layout(reduce.in_channels, width, _groups(_matrix(reduce)))
    if not depthwise or out_channels % LANES or not padded or padded > _SPARE * width:
        return
    if padded == width:
        return
    own = torch.arange(width)
    place = own // (width // groups) * (padded // groups) + own % (width // groups)
    places = torch.cat([place + padded * branch for branch in range(len(unit.branches))])
    wide = len(unit.branches) * padded
    unit.reduce.conv = _pointwise(
        _spread(_matrix(reduce), place, padded),
        None if reduce.bias is None else _spread(reduce.bias, place, padded),
    )
    _spread_slopes(unit.reduce.act, place, padded)
    for branch in unit.branches:
        branch.weight = nn.Parameter(_spread(branch.weight, place, padded))
        if branch.bias is not None:
            branch.bias = nn.Parameter(_spread(branch.bias, place, padded))
        branch.in_channels = branch.out_channels = branch.groups = padded
    if isinstance(unit.fuse.norm, Affine):
        unit.fuse.norm.scale = nn.Buffer(_spread(unit.fuse.norm.scale, places, wide))
        unit.fuse.norm.shift = nn.Buffer(_spread(unit.fuse.norm.shift, places, wide))
    _spread_slopes(unit.fuse.act, places, wide)
    unit.merge.conv = _pointwise(_spread(_matrix(merge).T, places, wide).T, merge.bias)


def _layout(in_channels: int, width: int, groups: int) -> tuple[int, int]:
    """Groups of a reduction and its padded width: the least padding, then the most groups."""
    possible = [
        (count * (-(-width // count // LANES) * LANES), -count)
        for count in range(1, groups + 1)
        if groups % count == 0 and width % count == 0 and in_channels // count % LANES == 0
    ]
    padded, count = min(possible, default=(0, -1))
    return -count, padded


def _move_within(unit: Any) -> None:
    """Activations of an EESP unit whose result only its next convolutions read."""
    if isinstance(unit.reduce.act, TwoSlopes) and _kinked(unit.reduce.act):
        for branch in unit.branches:
            _scale_inputs(branch, unit.reduce.act.kink)
        unit.reduce.act = _bend(unit.reduce.act)
    if isinstance(unit.fuse.act, TwoSlopes) and _kinked(unit.fuse.act):
        _scale_inputs(unit.merge.conv, unit.fuse.act.kink)
        unit.fuse.act = _bend(unit.fuse.act)


def _move_rise(unit: Any) -> None:
    """The activation behind the branches, whose rise is not 1 where a norm's scale was negative."""
    act, merge = unit.fuse.act, unit.merge.conv
    if not isinstance(act, TwoSlopes):
        return
    rise = act.fall + act.kink
    if bool((rise.abs() > _LEVEL).all()):
        unit.merge.conv = _pointwise(_matrix(merge) * rise, merge.bias)
        unit.fuse.act = TwoSlopes(torch.ones_like(rise), act.fall / rise, form=act.form)


def _trunks(network: nn.Module) -> Iterator[list[Any]]:
    """Layers in a row that nobody else looks between: of each stage, of a classifier all."""
    whole = [module for module in network.modules() if isinstance(module, ESPNetv2)]
    inside = {stage for classifier in whole for stage in classifier.backbone.stages}
    for classifier in whole:
        backbone: Any = classifier.backbone
        units = [unit for stage in backbone.stages for unit in (stage.down, *stage.units)]
        yield [backbone.stem, *units, *(backbone.final or ()), classifier.classifier]
    for module in network.modules():
        if isinstance(module, Stage) and module not in inside:
            yield [module.down, *module.units]


def _move_along(trunk: list[Any]) -> None:
    """Activations of a trunk, but for the last layer's, whose output keeps its scale.

    With y = s * y' at hand instead of y, the next unit's expansion is divided by s, its reduction
    multiplied; a negative s makes the slopes of its activation change places.
    """
    for before, after in pairwise(trunk):
        act = before.act
        if isinstance(act, TwoSlopes) and _kinked(act) and _takes(after):
            before.act = _bend(act)
            _absorb(after, act.kink)


def _takes(layer: Any) -> bool:
    """Whether a layer can take in the scales of its input."""
    kind = type(layer)
    if kind in (EESP, StridedEESP):
        return isinstance(layer.act, TwoSlopes) and (kind is StridedEESP or layer.residual)
    return kind in (nn.Conv2d, nn.Linear, ConvNormAct)


def _absorb(layer: Any, scale: Tensor) -> None:
    kind = type(layer)
    if kind is nn.Linear:
        layer.weight.mul_(scale)
    elif kind is nn.Conv2d:
        _scale_inputs(layer, scale)
    elif kind is ConvNormAct:
        _scale_inputs(layer.conv, scale)
    elif kind is StridedEESP:
        _scale_inputs(layer.unit.reduce.conv, scale)
        scale = torch.cat([scale, scale.new_ones(layer.unit.out_channels)])
        if layer.image is not None:
            _scale_outputs(layer.image[1].conv, 1 / scale)
        layer.act = _rescaled(layer.act, scale)
    else:
        _scale_inputs(layer.reduce.conv, scale)
        _scale_outputs(layer.merge.conv, 1 / scale)
        layer.act = _rescaled(layer.act, scale)


def _scale_inputs(conv: nn.Conv2d, scale: Tensor) -> None:
    columns = scale.view(conv.groups, 1, -1, 1, 1)
    conv.weight.mul_(columns.expand(-1, conv.out_channels // conv.groups, -1, 1, 1).flatten(0, 1))


def _scale_outputs(conv: nn.Conv2d, scale: Tensor) -> None:
    conv.weight.mul_(scale.view(-1, 1, 1, 1))
    if conv.bias is not None:
        conv.bias.mul_(scale)


def _rescaled(act: TwoSlopes, scale: Tensor) -> TwoSlopes:
    """Of the input divided by `scale`, the output that it had before."""
    rise, fall, up = act.fall + act.kink, act.fall, scale > 0
    first, second = torch.where(up, rise, fall), torch.where(up, fall, rise)
    return TwoSlopes(first * scale, second * scale, form="relu")


def _kinked(act: TwoSlopes) -> bool:
    return act.form == "relu" and bool((act.kink.abs() > _FLAT).all())


def _bend(act: TwoSlopes) -> Bend:
    return Bend(act.fall / act.kink)


def _spread_slopes(act: nn.Module, place: Tensor, width: int) -> None:
    assert isinstance(act, TwoSlopes)
    act.fall = nn.Buffer(_spread(act.fall, place, width))
    kink = torch.ones(width, dtype=act.kink.dtype)  # of the empty lanes, so that they are kinked
    kink[place] = act.kink
    act.kink = nn.Buffer(kink)
    act.plain = False


def _block_diagonal(blocks: Sequence[Tensor]) -> Tensor:
    whole: Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
    return whole


def _spread(rows: Tensor, place: Tensor, width: int) -> Tensor:
    """Rows at their places among zeros. Shape: (n, ...) -> (width, ...)."""
    wide = rows.new_zeros(width, *rows.shape[1:])
    wide[place] = rows
    return wide


def _matrix(conv: nn.Conv2d) -> Tensor:
    """A grouped 1x1 convolution as one matrix. Shape: (out_channels, in_channels)."""
    return _block_diagonal(conv.weight.flatten(1).chunk(conv.groups))


def _pointwise(rows: Tensor, bias: Tensor | None, *, groups: int = 1) -> nn.Conv2d:
    """A 1x1 convolution. Shape: rows (out_channels, in_channels / groups)."""
    conv: nn.Conv2d = nn.utils.skip_init(  # type: ignore[no-untyped-call]
        nn.Conv2d,
        rows.shape[1] * groups,
        rows.shape[0],
        1,
        groups=groups,
        bias=bias is not None,
        dtype=rows.dtype,
    )
    conv.weight = nn.Parameter(rows[:, :, None, None].clone())
    if bias is not None:
        conv.bias = nn.Parameter(bias.clone())
    return conv


def _regroup(network: nn.Module) -> None:
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Conv2d):
                setattr(module, name, _regrouped(child))


def _regrouped(conv: nn.Conv2d) -> nn.Conv2d:
    """A 1x1 in the most groups that are whole blocks and leave out nothing but zeros."""
    if conv.kernel_size != (1, 1) or conv.stride != (1, 1) or conv.in_channels == conv.groups:
        return conv
    matrix = _matrix(conv)
    groups = _groups(matrix, multiple=LANES)
    narrow = min(matrix.shape) // conv.groups < LANES
    if groups == conv.groups or (groups == 0 and not narrow):
        return conv
    return _pointwise(torch.cat(_diagonal(matrix, groups or 1)), conv.bias, groups=groups or 1)


def _groups(matrix: Tensor, *, multiple: int = 1) -> int:
    """The most groups, of a multiple of channels, outside of which there is nothing; 0 if none."""
    for groups in range(min(matrix.shape) // multiple, 0, -1):
        if all(side % (groups * multiple) == 0 for side in matrix.shape) and torch.equal(
            _block_diagonal(_diagonal(matrix, groups)), matrix
        ):
            return groups
    return 0


def _diagonal(matrix: Tensor, groups: int) -> list[Tensor]:
    rows = matrix.chunk(groups)
    return [row.chunk(groups, dim=1)[place].clone() for place, row in enumerate(rows)]
