"""Parameters and multiply-adds, layer by layer.

MACs are multiply-adds of convolutions and linear layers. `Complexity.macs` counts convolutions
only, as the papers' tables do (D24).
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from espnetv2.errors import UserError
from espnetv2.layers.eru import GroupedLinear
from espnetv2.models.catalog import Entry, entry
from espnetv2.profiling.receptive_field import ReceptiveField, tracked
from espnetv2.weights import keys
from espnetv2.weights.published import PUBLISHED

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d)


@dataclass(frozen=True)
class Layer:
    """One leaf module as it ran.

    Attributes:
        name: Path in the network.
        kind: Class of the module.
        shape: Of its output, without the batch.
        parameters: Its own.
        macs: Multiply-adds; 0 for anything but convolutions and linear layers.
        receptive_field: (height, width) in input pixels that one output value sees; None where
            it is not defined.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    macs: int
    receptive_field: tuple[float, float] | None


@dataclass(frozen=True)
class Complexity:
    """What one forward pass of one picture costs.

    Attributes:
        parameters: In the official layout, idle ones included (D3).
        live_parameters: The network's own.
        macs: Of convolutions, as papers count.
        transposed_macs: Of transposed convolutions.
        linear_macs: Of linear layers; of a language model all matrix products, the decoder's too.
    """

    layers: tuple[Layer, ...]
    parameters: int
    live_parameters: int
    macs: int
    transposed_macs: int
    linear_macs: int


def measure(
    network: nn.Module, size: tuple[int, int], *, name: str = "", in_channels: int = 3
) -> Complexity:
    """Run one picture through the network and count.

    Args:
        size: (height, width) of the picture; (1, 1) for a language model, one word.
        name: In the catalog, to count what only the official file has.
    """
    layers: list[Layer] = []
    hooks = [
        module.register_forward_hook(_recorder(path, layers))
        for path, module in network.named_modules()
        if not any(module.children()) and not isinstance(module, nn.Identity)
    ]
    device = next(network.parameters()).device
    word = size == (1, 1)
    shape = (1, 1) if word else (1, in_channels, *size)
    example = torch.zeros(shape, device=device, dtype=torch.long if word else torch.float32)
    training = network.training
    flops = FlopCounterMode(display=False)  # at work it imports torch._dynamo: seconds
    try:
        follow = nullcontext() if word else tracked(example)
        with torch.no_grad(), flops if word else nullcontext(), follow:
            network.eval()(example)
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    live = sum(parameter.numel() for parameter in network.parameters())
    return Complexity(
        layers=tuple(layers),
        parameters=live + keys.idle_parameters(name, network.state_dict()),
        live_parameters=live,
        macs=_sum(layers, ("Conv1d", "Conv2d")),
        transposed_macs=_sum(layers, ("ConvTranspose1d", "ConvTranspose2d")),
        linear_macs=flops.get_total_flops() // 2 if word else _sum(layers, ("Linear",)),
    )


def measure_by_name(name: str, *, size: tuple[int, int] | None = None) -> Complexity:
    """Count a network of the catalog, or one with the classes and size of published weights.

    Nothing is computed: the network is built without memory (torch's meta device).

    Raises:
        UserError: Unknown name, a size below 32, or an extra that is missing.
    """
    row, options, own_size = described(name)
    size = size or own_size
    if row.task == "language":
        size = (1, 1)
    elif min(size) < 32:
        raise UserError(f"size {size[0]}x{size[1]} is too small; both sides must be 32 or more")
    with torch.device("meta"):
        network = row.build(**options)
    return measure(network, size, name=name.partition(".")[0])


def described(name: str) -> tuple[Entry, dict[str, Any], tuple[int, int]]:
    """Catalog row, builder options and input size of a name with or without weight tag."""
    row = entry(name.partition(".")[0]) if name not in PUBLISHED else entry(PUBLISHED[name].model)
    channels = {} if row.task == "language" else {"in_channels": 3}
    if name not in PUBLISHED:
        entry(name)  # a tag that was never published is unknown
        return row, {"num_classes": row.num_classes, **channels}, row.input_size
    published = PUBLISHED[name]
    size = published.size or (360, 480)  # only CamVid has none: its pictures are 480x360
    return row, {"num_classes": row.num_classes, **channels, **published.options}, size


def _recorder(path: str, layers: list[Layer]) -> Any:
    def record(module: nn.Module, inputs: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) else output
        if not isinstance(first, Tensor):
            return
        field: ReceptiveField | None = getattr(first, "receptive_field", None)
        layers.append(
            Layer(
                name=path,
                kind=type(module).__name__,
                shape=tuple(first.shape[1:]),
                parameters=sum(p.numel() for p in module.parameters(recurse=False)),
                macs=_macs(module, inputs, first),
                receptive_field=None if field is None else field.size,
            )
        )

    return record


def _macs(module: nn.Module, inputs: Any, output: Tensor) -> int:
    if isinstance(module, _CONVOLUTIONS):
        per_value = math.prod(module.kernel_size) * module.in_channels // module.groups
        return output[0].numel() * per_value
    if isinstance(module, _TRANSPOSED):
        per_value = math.prod(module.kernel_size) * module.out_channels // module.groups
        return int(inputs[0][0].numel()) * per_value
    if isinstance(module, nn.Linear):
        return output[0].numel() * module.in_features
    if isinstance(module, GroupedLinear):  # sees one word here
        return module.weight.numel()
    return 0


def _sum(layers: list[Layer], kinds: tuple[str, ...]) -> int:
    return sum(layer.macs for layer in layers if layer.kind in kinds)
