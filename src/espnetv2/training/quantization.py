"""Fine-tuning for int8: values are rounded on the way forward as runtimes do, gradients are not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from espnetv2.deploy.fold import FusedNorm, fused_norm
from espnetv2.deploy.sensitivity import LAYERS
from espnetv2.errors import UserError
from espnetv2.layers.conv import ConvNormAct
from espnetv2.layers.eesp import EESP
from espnetv2.training.recipe import Recipe

_LAST = 255  # the largest of the 256 values of an activation
_LARGEST = 127  # of a weight; -128 is left out, so that both signs are alike
_SMALLEST_STEP = 1e-12


@dataclass(frozen=True)
class Spot:
    """A layer that int8 computes.

    Attributes:
        layer: Path of the convolution or linear map.
        gives: Path of the module whose output is the layer's in the deploy form: its norm, which
            will be folded into it, or the layer itself.
        unit: Path of the EESP unit whose fused norm goes into the layer.
        branch: Number of the branch that the layer is; None for the unit's expansion.
    """

    layer: str
    gives: str
    unit: str | None = None
    branch: int | None = None


class Range(nn.Module):
    """The range of an activation: a moving average of the batches' smallest and largest values.

    Shape: any -> the same, of 256 different values
    """

    def __init__(self, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.low, self.high = nn.Buffer(torch.zeros(())), nn.Buffer(torch.zeros(()))

    def forward(self, x: Tensor, *, watch: bool) -> Tensor:
        """Rounded; with `watch` the range moves first."""
        wide = x.float()
        if watch:
            self._see(wide.detach())
        step = ((self.high - self.low) / _LAST).clamp(min=_SMALLEST_STEP)
        zero = (-self.low / step).round().to(torch.int32)
        # torch gives no gradient beyond the range: an answer that has run too far, and most of all
        # a wrong one, would never come back
        error = torch.fake_quantize_per_tensor_affine(wide, step, zero, 0, _LAST).detach() - wide
        return (wide + error.detach()).to(x.dtype)

    def _see(self, x: Tensor) -> None:
        low, high = x.aminmax()
        low, high = low.clamp(max=0), high.clamp(min=0)  # padding is 0
        rate = torch.where(self.high == self.low, 1.0, self.momentum)  # nothing seen yet
        self.low.lerp_(low, rate)
        self.high.lerp_(high, rate)


class Rounding(nn.Module):
    """Makes a network in its train form compute as its deploy form will in int8.

    Weights are rounded per output channel, so a norm behind a convolution changes nothing: it
    scales weight and step alike. The norm over the fused branches of an EESP unit goes into the
    columns of the expansion instead (see docs/deploy/deploy-form.md): there, rounding happens on
    the deploy form's scales. Inputs and outputs of layers are rounded per tensor; sums,
    activations and pools stay in float, as in the exported graphs. Gradients pass as if nothing
    was rounded. Norms must keep their statistics.

    The network is left as it is outside of `around`; ranges are this module's buffers.

    Args:
        network: In the train form.
        momentum: Of the ranges' moving averages.
    """

    def __init__(self, network: nn.Module, *, momentum: float) -> None:
        super().__init__()
        self.spots = spots(network)
        self.inputs = nn.ModuleList(Range(momentum) for _ in self.spots)
        self.outputs = nn.ModuleList(Range(momentum) for _ in self.spots)

    @contextmanager
    def around(self, network: nn.Module, *, watch: bool) -> Iterator[None]:
        """Within, the network rounds.

        Args:
            watch: Whether ranges move.
        """
        norms = {
            one.unit: _detached(network.get_submodule(one.unit)) for one in self.spots if one.unit
        }
        seen: dict[int, tuple[Tensor, Tensor]] = {}  # what several layers read is rounded once
        with ExitStack() as undo:
            for spot, given, made in zip(self.spots, self.inputs, self.outputs, strict=True):
                layer = network.get_submodule(spot.layer)
                norm = norms.get(spot.unit) if spot.unit else None
                factor = norm.factor if norm is not None and spot.branch is None else None
                bias = None if norm is None or spot.branch is None else norm.biases[spot.branch]
                hook = layer.register_forward_pre_hook(_before(given, factor, seen, watch))
                undo.callback(hook.remove)
                after = network.get_submodule(spot.gives)
                undo.callback(after.register_forward_hook(_after(made, bias, watch)).remove)
                undo.enter_context(_rounded_weight(layer, factor))
            yield


def open_rounding(recipe: Recipe, network: nn.Module) -> Rounding | None:
    """The rounding that a recipe asks for.

    Raises:
        UserError: There are no trained weights to fine-tune.
    """
    if recipe.quantize.to == "float":
        return None
    if recipe.weights is None:
        raise UserError(
            "quantize fine-tunes trained weights, and the recipe starts afresh; give --weights "
            "NAME|FILE, or a stage without it before"
        )
    return Rounding(network, momentum=recipe.quantize.momentum)


def spots(network: nn.Module) -> list[Spot]:
    """The layers of a network that int8 computes, in order."""
    modules = dict(network.named_modules())
    units = {path: one for path, one in modules.items() if isinstance(one, EESP)}
    found = []
    for path, module in modules.items():
        if not isinstance(module, LAYERS):
            continue
        parent, _, own = path.rpartition(".")
        around = modules[parent]
        normed = isinstance(around, ConvNormAct) and isinstance(around.norm, nn.BatchNorm2d)
        gives = f"{parent}.norm".lstrip(".") if normed else path
        unit, _, part = parent.rpartition(".")
        if unit in units and part in ("branches", "merge"):
            branch = int(own) if part == "branches" else None
            found.append(Spot(path, gives, unit, branch))
        else:
            found.append(Spot(path, gives))
    return found


def _detached(unit: Any) -> FusedNorm | None:
    with torch.no_grad():
        return fused_norm(unit)


def _before(ranges: Any, factor: Tensor | None, seen: Any, watch: bool) -> Any:
    def hook(layer: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x = given[0]
        if factor is not None:
            own = factor.view(-1, 1, 1)
            return (ranges(x / own, watch=watch) * own, *given[1:])
        if id(x) not in seen:
            seen[id(x)] = x, ranges(x, watch=watch)  # x is kept, so that its number stays its own
        return (seen[id(x)][1], *given[1:])

    return hook


def _after(ranges: Any, bias: Tensor | None, watch: bool) -> Any:
    def hook(layer: nn.Module, given: Any, x: Tensor) -> Tensor:
        if bias is None:
            rounded: Tensor = ranges(x, watch=watch)
            return rounded
        own = bias.view(-1, 1, 1)
        shifted: Tensor = ranges(x + own, watch=watch) - own
        return shifted

    return hook


@contextmanager
def _rounded_weight(layer: Any, factor: Tensor | None) -> Iterator[None]:
    """In the place of the parameter, whose rank among the others stays."""
    parameter: Tensor = layer.weight
    weight = parameter
    axis = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
    if factor is not None:
        columns = factor.view(layer.groups, 1, -1, 1, 1)
        columns = columns.expand(-1, len(weight) // layer.groups, -1, -1, -1).flatten(0, 1)
        weight = weight * columns
    others = [dim for dim in range(weight.dim()) if dim != axis]
    step = weight.detach().abs().amax(dim=others).float() / _LARGEST
    step = step.clamp(min=_SMALLEST_STEP)
    rounded = torch.fake_quantize_per_channel_affine(
        weight, step, torch.zeros_like(step, dtype=torch.int32), axis, -_LARGEST, _LARGEST
    )
    if factor is not None:
        rounded = rounded / columns
    layer._parameters["weight"] = rounded
    try:
        yield
    finally:
        layer._parameters["weight"] = parameter
