"""Train form to deploy form: an equal network for inference, with fewer and cheaper operations."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torch.nn.modules.batchnorm import _BatchNorm

from espnetv2.data.preprocess import Preprocessing
from espnetv2.deploy.forms import (
    Activation,
    Affine,
    Normalize,
    TwoSlopes,
    WindowMeans,
    WordEESP,
    scale_shift,
)
from espnetv2.layers.conv import ConvNormAct, NormAct
from espnetv2.layers.eesp import EESP, use_kernels_
from espnetv2.layers.eru import ERU
from espnetv2.layers.pyramid_pool import PyramidPool
from espnetv2.models.espnet import ESPNet
from espnetv2.models.espnetv2_seg_arxiv import ESPNetv2SegArxiv

_FAR = 64.0  # a shift this many times a branch's own values would cost digits
_FLAT = 0.25  # slopes less steep than this are not divided by


def fold(
    network: nn.Module,
    *,
    activation: Activation = "prelu",
    dense_below: int = 0,
    preprocessing: Preprocessing | None = None,
) -> nn.Module:
    """An equal network for inference; the given one stays as it is.

    Norms go into the convolutions before or behind them wherever algebra allows, computed in
    float64. The norm over the fused branches of an EESP unit cannot simply do so, since branch j
    also feeds every later sum: its shifts become biases of the depth-wise convolutions, its
    scales weights of the expansion, and where a scale is negative the two slopes of the
    activation change places. Outputs are equal within rounding (1e-5 relative).

    The rewriting is described in docs/deploy/deploy-form.md.
    Shape: as the network's; uint8 or float RGB, 0 to 255, with `preprocessing`

    Args:
        activation: "prelu", or "relu" for engines that are slow at PReLU.
        dense_below: Grouped 1x1 convolutions with fewer channels a group become dense ones; 0 for
            none, 16 is fastest in ONNX Runtime and OpenVINO.
        preprocessing: Take the arithmetic of this convention (not the resizing) into the graph.
    """
    kind = next(iter(network.parameters())).dtype
    folded = copy.deepcopy(network).eval().double()
    use_kernels_(folded, "reference", "cpu")  # what was laid out for them is of the train form
    if not any(isinstance(module, _OURS) for module in folded.modules()):
        return _fold_foreign(folded).to(kind).requires_grad_(False)
    with torch.no_grad():
        for rule, types in ((_RULES, tuple(_RULES)), (_LAST, tuple(_LAST))):
            for module in list(folded.modules()):
                if isinstance(module, types):
                    rule[type(module)](module)
        _replace(folded, _BatchNorm, lambda norm: Affine(*scale_shift(norm)))
        _replace(folded, nn.PReLU, lambda act: _slopes(act.weight))
        _replace(folded, nn.Dropout, lambda _: nn.Identity())
        _replace(folded, nn.Dropout2d, lambda _: nn.Identity())
        if dense_below:
            _replace(folded, nn.Conv2d, lambda conv: _dense(conv, dense_below))
    for module in folded.modules():
        if isinstance(module, TwoSlopes):
            module.form = activation
    folded = folded.to(kind).requires_grad_(False)
    if preprocessing is not None:
        return nn.Sequential(Normalize(preprocessing).to(kind), folded)
    return folded


@dataclass(frozen=True)
class FusedNorm:
    """What becomes of the norm over the fused branches of an EESP unit.

    Attributes:
        biases: (branches, C/K), of the depth-wise convolutions.
        rise: (C,), of the activation behind the running sums; see `forms.TwoSlopes`.
        fall: (C,), the same.
        factor: (C,), of the expansion's inputs.
    """

    biases: Tensor
    rise: Tensor
    fall: Tensor
    factor: Tensor


def fused_norm(unit: EESP) -> FusedNorm | None:
    """See `FusedNorm`; None where some channel hardly listens to its input: the norm stays."""
    norm, act = unit.fuse.norm, unit.fuse.act
    scale, shift = scale_shift(norm)
    moved = shift / scale  # on the scale of the sums
    assert norm.running_mean is not None
    assert norm.running_var is not None
    own = norm.running_mean.abs() + norm.running_var.sqrt()
    if not bool(((scale != 0) & (moved.abs() <= _FAR * own)).all()):
        return None
    biases = moved.view(len(unit.branches), -1).clone()
    if unit.fusion:  # a sum passes its shift on to the next one, if it feeds it
        biases[1:] -= moved.view(len(unit.branches), -1)[:-1]
    return FusedNorm(biases, *_turned(scale, act.weight))


def _fold_unit(unit: EESP) -> None:
    """The EESP unit's fused norm, between running sums and expansion."""
    _fold_conv(unit.merge)
    found = fused_norm(unit)
    if found is None:
        return
    for branch, bias in zip(unit.branches, found.biases, strict=True):
        branch.bias = nn.Parameter(bias)
    _scale_inputs(unit.merge.conv, found.factor)
    _drop(unit.fuse)
    _put(unit.fuse, "act", TwoSlopes(found.rise, found.fall))


def _turned(scale: Tensor, slope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Two slopes f and a factor k with prelu(scale * u) = k * f(u), for every u.

    Where the scale is negative, the slopes change places. If possible f rises by 1 and is a PReLU.
    """
    rise, fall = torch.ones_like(slope), slope.clone()
    factor = scale.clone()
    down = scale < 0
    # prelu(-|s| u): -|s| a u for positive u, -|s| u for negative u
    steep = down & (slope.abs() >= _FLAT)
    factor[steep] = scale[steep] * slope[steep]
    fall[steep] = 1 / slope[steep]
    flat = down & ~steep
    rise[flat], fall[flat] = slope[flat], 1.0
    return rise, fall, factor


def _fold_pyramid(pyramid: PyramidPool) -> None:
    """Resizing keeps constants, so the fused norm goes into the branches; pooling is of gathers."""
    scale, shift = scale_shift(pyramid.fuse.norm)
    parts = zip(
        pyramid.branches,
        scale.chunk(len(pyramid.branches)),
        shift.chunk(len(pyramid.branches)),
        strict=True,
    )
    for branch, own_scale, own_shift in parts:
        _scale_outputs(branch, own_scale, own_shift)
    _drop(pyramid.fuse)
    if isinstance(pyramid.out, NormAct):
        _scale_outputs(pyramid.project, *scale_shift(pyramid.out.norm))
        _drop(pyramid.out)
    _put(pyramid, "pool", WindowMeans(min(pyramid.scales)))


def _fold_words(parent: nn.Module) -> None:
    """An ERU cell whose units see one word: their depth-wise convolutions are factors."""
    assert isinstance(parent, ERU)
    if not parent.transform.over_time:
        _put(parent, "transform", WordEESP(parent.transform))


def _fold_espnet(network: ESPNet) -> None:
    """Norms of the decoder, whose inputs are convolutions, plain or transposed."""
    _scale_outputs(network.encoder.classify, *scale_shift(network.norm3))
    _drop(network, "norm3")
    scale, shift = scale_shift(network.norm2.norm)
    half = len(scale) // 2
    _scale_outputs(network.project2, scale[:half], shift[:half])
    _scale_outputs(network.double3, scale[half:], shift[half:])
    _drop(network.norm2)
    _scale_outputs(network.double2, *scale_shift(network.norm1.norm))
    _drop(network.norm1)


def _fold_arxiv(network: ESPNetv2SegArxiv) -> None:
    """The norm behind the class maps at stride 8; the auxiliary output is training's."""
    _scale_outputs(network.classify_8[-1], *scale_shift(network.norm_8.norm))
    _drop(network.norm_8)


def _fold_conv(module: ConvNormAct) -> None:
    if isinstance(module.norm, _BatchNorm):
        _scale_outputs(module.conv, *scale_shift(module.norm))
        _drop(module)


def _fold_foreign(network: nn.Module) -> nn.Module:
    """A network of another library: norms right behind convolutions, if it can be traced."""
    try:
        folded: nn.Module = fuse(network, no_trace=False)
    except Exception:  # tracing fails in many ways; runtimes fold such norms themselves
        return network
    return folded


_OURS = (ConvNormAct, NormAct, EESP, ERU)
_RULES: dict[type[nn.Module], Callable[[Any], None]] = {
    EESP: _fold_unit,
    ERU: _fold_words,
    PyramidPool: _fold_pyramid,
    ESPNet: _fold_espnet,
    ESPNetv2SegArxiv: _fold_arxiv,
}
_LAST: dict[type[nn.Module], Callable[[Any], None]] = {ConvNormAct: _fold_conv}


def _drop(parent: nn.Module, name: str = "norm") -> None:
    _put(parent, name, nn.Identity())


def _put(parent: nn.Module, name: str, module: nn.Module) -> None:
    setattr(parent, name, module)


def _scale_outputs(conv: nn.Module, scale: Tensor, shift: Tensor) -> None:
    """Make a convolution give scale * (what it gave) + shift."""
    assert isinstance(conv, nn.Conv2d | nn.ConvTranspose2d)
    axis = 1 if isinstance(conv, nn.ConvTranspose2d) else 0
    shape = [1] * conv.weight.dim()
    shape[axis] = -1
    conv.weight.mul_(scale.view(shape))
    before = torch.zeros_like(shift) if conv.bias is None else conv.bias
    conv.bias = nn.Parameter(before * scale + shift)


def _scale_inputs(conv: nn.Conv2d, factor: Tensor) -> None:
    """Make a grouped 1x1 convolution give what it would give for factor * input."""
    blocks = conv.weight.view(conv.groups, -1, *conv.weight.shape[1:])  # (g, out/g, in/g, 1, 1)
    blocks.mul_(factor.view(conv.groups, 1, -1, 1, 1))


def _slopes(fall: Tensor) -> TwoSlopes:
    return TwoSlopes(torch.ones_like(fall), fall)


def _dense(conv: nn.Conv2d, below: int) -> nn.Conv2d:
    """A grouped 1x1 with narrow groups as one dense 1x1; others as they are."""
    narrow = min(conv.in_channels, conv.out_channels) // conv.groups < below
    depthwise = conv.groups == conv.in_channels
    plain = conv.kernel_size == (1, 1) and conv.stride == (1, 1)
    if not plain or conv.groups == 1 or depthwise or not narrow:
        return conv
    whole = nn.Conv2d(conv.in_channels, conv.out_channels, 1, bias=conv.bias is not None)
    whole = whole.to(conv.weight)
    nn.init.zeros_(whole.weight)
    rows, columns = len(conv.weight) // conv.groups, conv.weight.shape[1]
    for group, block in enumerate(conv.weight.chunk(conv.groups)):
        own = slice(group * columns, (group + 1) * columns)
        whole.weight[group * rows : (group + 1) * rows, own] = block
    if conv.bias is not None and whole.bias is not None:
        whole.bias.copy_(conv.bias)
    return whole


def _replace(network: nn.Module, kind: type[nn.Module], make: Callable[[Any], nn.Module]) -> None:
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, kind):
                _put(parent, name, make(child))
