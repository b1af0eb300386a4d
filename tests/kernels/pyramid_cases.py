"""Inputs of the depth-wise pyramid, and what float64 says of them."""

from dataclasses import dataclass

import torch

from espnetv2.kernels.depthwise_pyramid import reference

FORMATS = {"nchw": torch.contiguous_format, "channels-last": torch.channels_last}
RATIOS = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-3}
"""Relative RMS; half of the spacing of numbers is 2e-3 of bfloat16 and 2.4e-4 of float16."""


@dataclass
class Case:
    x: torch.Tensor
    weight: torch.Tensor
    dilations: list
    stride: int
    grad: torch.Tensor

    @property
    def settings(self):
        return self.dilations, self.stride

    def truth(self):
        """Output and both gradients, in float64."""
        x, weight = (one.detach().cpu().double().requires_grad_() for one in (self.x, self.weight))
        y = reference.depthwise_pyramid(x, weight, *self.settings)
        return y.detach(), *torch.autograd.grad(y, (x, weight), self.grad.cpu().double())


def case(shape, dilations, stride=1, *, form="nchw", dtype=torch.float32, device="cpu", shift=0.0):
    """Random numbers of a given kind; `shift` moves the mean of the map."""
    batch, channels, height, width = shape
    x = (torch.randn(shape) + shift).to(device, dtype).contiguous(memory_format=FORMATS[form])
    weight = torch.randn(len(dilations), channels, 3, 3).to(device, dtype)
    size = -(-height // stride), -(-width // stride)
    grad = torch.randn(batch, len(dilations) * channels, *size).to(device, dtype)
    return Case(x, weight, list(dilations), stride, grad.contiguous(memory_format=FORMATS[form]))
