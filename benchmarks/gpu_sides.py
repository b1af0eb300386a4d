"""What `benchmarks/gpu.py` times: a network, how its layers are computed, and what is done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from gpu_clock import Call
from official_sequence import OfficialSequence
from torch import Tensor, nn

from espnetv2.deploy.fold import fold
from espnetv2.deploy.targets import engine_kind
from espnetv2.errors import UserError
from espnetv2.kernels.dispatch import choose
from espnetv2.layers.eesp import use_kernels_
from espnetv2.models.catalog import entry
from espnetv2.profiling.benchmark import network_of

NOTHING = 255
"""The label of pixels that no loss counts."""


@dataclass(frozen=True)
class Side:
    """One of the things that are compared.

    Attributes:
        name: In the table.
        model: Of the catalog; weights are random, the same every time.
        train: Whether a step of training, else a pass.
        kernels: "reference" or "fused".
        form: "plain", "official" (the authors' order of layers) or "deploy".
        runner: "eager", "compile", "reduce-overhead" (compiled, with CUDA graphs) or "graph"
            (the engine cudagraph; in training a graph forward and one backward).
        class_map: Whether the answer is each pixel's class instead of logits.
    """

    name: str
    model: str
    train: bool = False
    kernels: str = "reference"
    form: str = "plain"
    runner: str = "eager"
    batch: int = 1
    size: tuple[int, int] = (224, 224)
    class_map: bool = False

    @property
    def compiled(self) -> bool:
        """Whether torch.compile makes it, which takes a minute."""
        return self.runner in ("compile", "reduce-overhead")


class ClassMap(nn.Module):
    """A segmenter's answer for people: (B, 3, H, W) -> (B, H, W), the class of each pixel."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        classes: Tensor = self.network(image).argmax(1).to(torch.uint8)
        return classes


def opened(side: Side, device: torch.device, *, calls: int = 3) -> Call:
    """The call to be timed, warm: that many calls have chosen and compiled its kernels.

    Raises:
        UserError: Its kernels or its engine do not run on this device.
    """
    call = _training(side, device) if side.train else _pass(side, device)
    for _ in range(calls):
        call()
    return call


def need_fused(device: torch.device) -> None:
    """Whether the fused kernels run there.

    Raises:
        UserError: They do not.
    """
    choice = choose("fused", device.type)
    if not choice.fused:
        raise UserError(choice.notice)


def with_kernels(
    network: nn.Module, kernels: str, device: torch.device, *, frozen: bool = False
) -> nn.Module:
    """The network with its EESP units computed by these kernels.

    Args:
        frozen: It is in evaluation, and in its last precision.

    Raises:
        UserError: They do not run on this device.
    """
    if kernels == "fused":
        need_fused(device)
    use_kernels_(network, kernels, str(device), frozen=frozen)
    return network


def images_of(side: Side, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Random pictures, channels last."""
    torch.manual_seed(0)
    images = torch.randn(side.batch, 3, *side.size, device=device, dtype=dtype)
    return images.to(memory_format=torch.channels_last)


def _training(side: Side, device: torch.device) -> Call:
    network = network_of(side.model).network.train()
    network = with_kernels(
        network.to(device, memory_format=torch.channels_last), side.kernels, device
    )
    run = OfficialSequence(network) if side.form == "official" else network
    run = _compiled(run, side, device) if side.compiled else run
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9)
    images = images_of(side, device, torch.float32)
    if side.runner == "graph":
        run = _graphed(network, images)
    whole = entry(side.model).task == "segmentation"
    shape = (side.batch, *side.size) if whole else (side.batch,)
    targets = torch.randint(entry(side.model).num_classes, shape, device=device)

    def step() -> Tensor:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16):
            loss = F.cross_entropy(run(images), targets, ignore_index=NOTHING)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def _graphed(network: nn.Module, images: Tensor) -> Any:
    """The network with its launches recorded, forward and backward."""
    if not images.is_cuda:  # a rehearsal
        return network
    with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
        return torch.cuda.make_graphed_callables(network, (images,))


def _pass(side: Side, device: torch.device) -> Call:
    network = network_of(side.model).network.eval()
    network = fold(network) if side.form == "deploy" else network
    network = ClassMap(network) if side.class_map else network
    images = images_of(side, device, torch.bfloat16)
    if side.runner == "graph":
        engine = engine_kind("cudagraph")(network, precision="bf16", device=str(device))
        with_kernels(engine.network, side.kernels, device, frozen=True)
        return lambda: engine(images)
    network.to(device, torch.bfloat16, memory_format=torch.channels_last)
    with_kernels(network, side.kernels, device, frozen=True)
    run = _compiled(network, side, device) if side.compiled else network

    def call() -> Any:
        with torch.inference_mode():
            return run(images)

    return call


def _compiled(network: nn.Module, side: Side, device: torch.device) -> Any:
    if device.type != "cuda":  # a rehearsal: C++ would be compiled for minutes
        return torch.compile(network, backend="aot_eager", dynamic=False)
    mode = "reduce-overhead" if side.runner == "reduce-overhead" else None
    return torch.compile(network, mode=mode, dynamic=False)
