"""Which layers does int8 hurt? Each is quantised alone, in torch, and the outputs compared."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
_PICTURES = 8


def worst_first(network: nn.Module, calibration: Sequence[np.ndarray]) -> list[str]:
    """Names of the layers, by the squared error that int8 in each alone makes in the outputs.

    A layer's input is quantised per tensor, its weight per output channel, as runtimes do.

    Args:
        network: In float, as it will be quantised.
        calibration: Inputs as the network takes them, each (B, 3, H, W); the first few are used.
    """
    network = copy.deepcopy(network).eval()
    inputs = [torch.from_numpy(one) for one in calibration[:_PICTURES]]
    with torch.inference_mode():
        truth = [_parts(network(x)) for x in inputs]
        costs = {}
        for name, layer in network.named_modules():
            if isinstance(layer, LAYERS):
                costs[name] = _cost(network, layer, inputs, truth)
    return sorted(costs, key=lambda name: -costs[name])


def _cost(
    network: nn.Module, layer: nn.Module, inputs: list[Tensor], truth: list[list[Tensor]]
) -> float:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    before = weight.data
    hook = layer.register_forward_pre_hook(lambda _, given: (_rounded(given[0]), *given[1:]))
    try:
        weight.data = _rounded_weight(before, axis=isinstance(layer, nn.ConvTranspose2d))
        total = 0.0
        for x, expected in zip(inputs, truth, strict=True):
            for old, new in zip(expected, _parts(network(x)), strict=True):
                size = float(old.float().square().mean()) or 1.0
                total += float((old.float() - new).square().mean()) / size
    finally:
        hook.remove()
        weight.data = before
    return total


def _rounded(x: Tensor) -> Tensor:
    """What is left of a tensor in 8 bits with one scale."""
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    step = (high - low) / 255 or 1.0
    zero = round(-low / step)
    return ((x / step).round() + zero).clamp(0, 255).sub(zero).mul(step)


def _rounded_weight(weight: Tensor, *, axis: int) -> Tensor:
    """What is left of a weight in 8 bits with a scale per output channel."""
    others = [dim for dim in range(weight.dim()) if dim != axis]
    step = weight.abs().amax(dim=others, keepdim=True).clamp(min=1e-12) / 127
    return (weight / step).round() * step


def _parts(outputs: Any) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)
