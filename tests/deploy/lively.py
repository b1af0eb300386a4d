"""Networks as training leaves them, for tests of their other forms."""

import torch

from espnetv2.deploy.lively import make_lively as lively

__all__ = ["lively", "parts"]


def parts(outputs):
    """Every tensor of a network's answer."""
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    return [tensor for part in outputs for tensor in parts(part)]
