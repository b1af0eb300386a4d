"""Equal forms of what ONNX runtimes are slow at."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from espnetv2.deploy.blocks import in_blocks, with_prelu
from espnetv2.deploy.forms import TwoSlopes, WindowMeans
from espnetv2.deploy.forms_xnnpack import FixedMeans, SummedPyramid, can_split
from espnetv2.deploy.outputs import Boxes, Mask, Probabilities
from espnetv2.layers.pyramid_pool import PyramidPool
from espnetv2.layers.traced import known


def for_onnx(
    network: nn.Module, inputs: tuple[Tensor, ...], *, precision: str, prelu: bool = False
) -> nn.Module:
    """An equal network; the given one stays as it is. A train form comes back unchanged.

    Shape: as the network's

    Args:
        network: In the deploy form with `activation="relu"`.
        inputs: Examples; pools learn their sizes from them.
        precision: "fp16" gives a network that computes in half, with float32 in and out.
        prelu: For engines that are fast at PReLUs; see `with_prelu`.
    """
    if any(isinstance(module, _BatchNorm) for module in network.modules()):
        return network
    if precision == "int8":  # blocks are of floats
        changed = copy.deepcopy(network)
    else:
        changed = (with_prelu if prelu else in_blocks)(network, move=precision == "fp32")
    for parent in list(changed.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, PyramidPool) and can_split(child):
                child.add_module("pool", WindowProducts())
                setattr(parent, name, SummedPyramid(child))
            elif isinstance(child, WindowMeans):
                setattr(parent, name, WindowProducts())
    for module in changed.modules():
        if isinstance(module, TwoSlopes) and not prelu:
            module.form = "relu"
    with torch.inference_mode():
        changed(*inputs)
    return _halved(changed) if precision == "fp16" else changed


class WindowProducts(FixedMeans):
    """Adaptive pooling for sizes that are known, and as products with matrices otherwise.

    A product with a matrix of means computes more than it needs to, and yet takes a tenth of the
    time of gathering rows and columns.

    Shape: (B, C, H, W) -> (B, C, *size)
    """

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """See the class."""
        height, width = x.shape[-2:]
        if known(height, width, *size):
            return super().forward(x, size)
        rows, columns = _means(height, size[0], like=x), _means(width, size[1], like=x)
        return rows @ (x @ columns.T)


class Half(nn.Module):
    """A network that computes in half, with float32 in and out.

    Shape: as the network's
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.half()

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """See the class."""
        narrow = (x.half() if x.is_floating_point() else x for x in inputs)
        outputs = self.network(*narrow)
        if isinstance(outputs, Tensor):
            return outputs.float()
        wide = [x.float() for x in outputs]
        return type(outputs)(*wide) if hasattr(outputs, "_fields") else tuple(wide)


def _halved(network: nn.Module) -> nn.Module:
    """Decoding stays in float32: half cannot tell neighbouring boxes apart."""
    if isinstance(network, Probabilities | Mask | Boxes):
        network.network = Half(network.network)
        return network
    return Half(network)


def _means(length: int, count: int, *, like: Tensor) -> Tensor:
    """Shape: (count, length), one window of adaptive pooling a row."""
    place = torch.arange(length, device=like.device)
    first = torch.arange(count, device=like.device)[:, None]
    start, stop = first * length // count, ((first + 1) * length + count - 1) // count
    inside = F.relu(torch.minimum(place + 1, stop) - torch.maximum(place, start))  # 0 or 1
    return inside.to(like.dtype) / (stop - start).to(like.dtype)
