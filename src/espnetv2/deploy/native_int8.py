"""What the native engine computes in bytes: 1x1 convolutions, the last layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from espnetv2.deploy.sensitivity import worst_first
from espnetv2.errors import UserError

_INSIDE = 0.9999
"""Of the values of an input, within its range."""
_COUNTED = 1 << 20
"""Values of an input that are looked at, a picture."""
_FEWEST_INPUTS, _FEWEST_OUTPUTS = 8, 32
"""Of a group; with fewer, rounding an input takes longer than multiplying it as it is."""


@dataclass(frozen=True)
class Bytes:
    """How an input is rounded: byte = round(x / scale) + zero, from 0 to 255."""

    scale: float
    zero: int

    @classmethod
    def between(cls, low: float, high: float) -> Bytes:
        """For values of this range, which always holds 0."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = (high - low) / 255 or 1.0
        return cls(scale, round(-low / scale))


def ranges(
    network: nn.Module, calibration: Sequence[np.ndarray], *, float_layers: Sequence[str] = ()
) -> dict[nn.Module, Bytes]:
    """How the inputs of layers are rounded, by layer.

    Args:
        network: In the deploy form, without decoding.
        calibration: Inputs as the network takes them, each (B, 3, H, W).
        float_layers: Names of layers to leave out.

    Raises:
        UserError: There are no calibration inputs, or no such layer to leave out.
    """
    if not calibration:
        raise UserError("int8 needs pictures like the device's to find its ranges; give --calib")
    named = dict(_layers(network))
    missing = set(float_layers) - set(named)
    if missing:
        raise UserError(f"no such layers to leave in float: {', '.join(sorted(missing))}")
    seen: dict[nn.Module, list[tuple[float, float]]] = {}
    hooks = [
        layer.register_forward_pre_hook(_watch(seen.setdefault(layer, [])))
        for name, layer in named.items()
        if name not in float_layers
    ]
    try:
        with torch.inference_mode():
            for one in calibration:
                network(torch.from_numpy(one))
    finally:
        for hook in hooks:
            hook.remove()
    return {
        layer: Bytes.between(min(low for low, _ in found), max(high for _, high in found))
        for layer, found in seen.items()
        if found
    }


def rank(network: nn.Module, calibration: Sequence[np.ndarray]) -> list[str]:
    """Names of the layers that bytes hurt most, worst first."""
    named = {layer: name for name, layer in _layers(network)}
    used = {named[layer] for layer in ranges(network, calibration)}
    return [name for name in worst_first(network, calibration) if name in used]


def rounded(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight in int8 and its scale, one an output.

    Shape: (C, ...) -> (C, ...), (C,)
    """
    scale = weight.flatten(1).abs().amax(dim=1).clamp(min=1e-12) / 127
    return (weight / scale.view(-1, *[1] * (weight.dim() - 1))).round().to(torch.int8), scale


def _layers(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and _suits(layer)):
            yield name, layer


def _suits(conv: nn.Conv2d) -> bool:
    plain = conv.kernel_size == (1, 1) and conv.stride == (1, 1)
    inputs, outputs = conv.in_channels // conv.groups, conv.out_channels // conv.groups
    return plain and inputs >= _FEWEST_INPUTS and outputs >= _FEWEST_OUTPUTS


def _watch(found: list[tuple[float, float]]) -> Callable[..., None]:
    def look(layer: nn.Module, given: tuple[Any, ...]) -> None:
        x: Tensor = given[0]
        if x.dim() == 4 and x.shape[-2:] == (1, 1):  # a gate: little work, and much depends on it
            return
        values = x.flatten()
        values = values[:: -(-values.numel() // _COUNTED)]
        edges = torch.tensor([1 - _INSIDE, _INSIDE], dtype=values.dtype)
        low, high = values.quantile(edges).tolist()
        found.append((low, high))

    return look
