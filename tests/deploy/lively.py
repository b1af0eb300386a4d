"""Networks as training leaves them, for tests of their other forms."""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def lively(network, *, seed=0):
    """Norms and slopes as training leaves them: distinct, negative, above one."""
    chance = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            count = module.num_features
            module.weight.data = 0.3 + 1.5 * torch.rand(count, generator=chance)
            module.weight.data[torch.rand(count, generator=chance) < 0.2] *= -1
            module.bias.data = 0.3 * torch.randn(count, generator=chance)
            module.running_mean = 0.3 * torch.randn(count, generator=chance)
            module.running_var = 0.5 + torch.rand(count, generator=chance)
        elif isinstance(module, nn.PReLU):
            module.weight.data = 0.8 * torch.randn(module.num_parameters, generator=chance)
    return network.eval()


def parts(outputs):
    """Every tensor of a network's answer."""
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    return [tensor for part in outputs for tensor in parts(part)]
