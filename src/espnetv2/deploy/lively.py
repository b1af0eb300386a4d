"""Weights as training leaves them, for networks that have none."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def make_lively(network: nn.Module, *, seed: int = 0) -> nn.Module:
    """Give every norm and slope distinct values, some negative, some above one; in place.

    Freshly initialised norms are all the same, and exporters that merge equal tensors then make
    graphs that no trained network has: speed and rounding measured on them deceive.

    Returns:
        The network, in evaluation mode.
    """
    chance = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, _BatchNorm) and module.running_mean is not None:
            count = module.num_features
            module.weight.data = 0.3 + 1.5 * torch.rand(count, generator=chance)
            module.weight.data[torch.rand(count, generator=chance) < 0.2] *= -1
            module.bias.data = 0.3 * torch.randn(count, generator=chance)
            module.running_mean = 0.3 * torch.randn(count, generator=chance)
            module.running_var = 0.5 + torch.rand(count, generator=chance)
        elif isinstance(module, nn.PReLU):
            module.weight.data = 0.8 * torch.randn(module.num_parameters, generator=chance)
    return network.eval()
