"""torch on a GPU with the network as one CUDA graph: one launch instead of hundreds."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from espnetv2.deploy.engine_torch import dtype_of, open_device
from espnetv2.deploy.engines import Engine
from espnetv2.errors import UserError

MOST_SHAPES = 8
"""Recordings that are kept, each with memory of its own; the one that was used last goes last."""

WARM_UP = 3
"""Passes before a recording: libraries choose their kernels and take their workspaces in them."""


class CudaGraphEngine(Engine):
    """The network's launches, recorded once for each shape of input and then replayed.

    A light network is hundreds of short kernels, and with few pictures a call the processor that
    launches them is slower than the GPU. A replay is one launch. It reads and writes the same
    memory each time: images are copied into it, outputs are copied out, back to where the images
    are. Not for two threads at a time.

    Args:
        network: Of any form; it stays as it is.
        precision: "fp32"; "bf16" and "fp16" convert the weights.
        threads: CPU threads; they launch nothing here.
        device: "cuda", "cuda:1", ...

    Raises:
        UserError: There is no such GPU.
    """

    name = "cudagraph"

    def __init__(
        self,
        network: nn.Module,
        *,
        precision: str = "fp32",
        threads: int | None = None,
        device: str = "cuda",
    ) -> None:
        self.precision, self.threads = precision, threads or torch.get_num_threads()
        self.device = _gpu(device)
        self._dtype = dtype_of(precision)
        self.network = copy.deepcopy(network).eval().to(self.device, self._dtype)
        self.network.to(memory_format=torch.channels_last)
        self.smallest_prior = getattr(network, "smallest_prior", Engine.smallest_prior)
        self._recordings: OrderedDict[tuple[int, ...], _Recording] = OrderedDict()

    def __call__(self, images: Tensor) -> Any:
        """See the base class."""
        with torch.inference_mode(), torch.cuda.device(self.device):
            outputs = self._recording(images).replay(images)
            if isinstance(outputs, Tensor):
                return _own(outputs, images.device)
            return type(outputs)(*(_own(one, images.device) for one in outputs))

    def run(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """See the base class."""
        outputs = self(torch.from_numpy(inputs[0]))
        parts = (outputs,) if isinstance(outputs, Tensor) else outputs
        return tuple(part.numpy() for part in parts)

    def _recording(self, images: Tensor) -> _Recording:
        shape = tuple(images.shape)
        if shape not in self._recordings:
            if len(self._recordings) == MOST_SHAPES:
                self._recordings.popitem(last=False)
            last = torch.channels_last
            example = images.to(self.device, self._dtype, memory_format=last, copy=True)
            self._recordings[shape] = _Recording(self.network, example)
        self._recordings.move_to_end(shape)
        return self._recordings[shape]


class _Recording:
    """One graph, the memory that it reads, and the memory that it writes."""

    def __init__(self, network: nn.Module, images: Tensor) -> None:
        self._images = images
        # what the first passes take must not be the recording's
        side: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                network(images)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._outputs = network(images)

    def replay(self, images: Tensor) -> Any:
        """Outputs that the next replay overwrites."""
        self._images.copy_(images)
        self._graph.replay()
        return self._outputs


def _own(output: Tensor, device: torch.device) -> Tensor:
    return output.to(device, torch.float32 if output.is_floating_point() else None, copy=True)


def _gpu(name: str) -> torch.device:
    if not torch.cuda.is_available():
        raise UserError(
            "the engine cudagraph needs an NVIDIA GPU and a torch built for it, and there is none "
            "here; choose another engine, such as compile"
        )
    device = open_device(name)
    if device.type != "cuda":
        raise UserError(f"the engine cudagraph runs on a GPU, not on {name}; give cuda")
    return device
