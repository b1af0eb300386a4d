"""torch itself as an engine, plain and compiled, of the train form or the deploy form."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from espnetv2.deploy.engines import Engine
from espnetv2.errors import UserError
from espnetv2.layers.eesp import use_kernels_

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Types by the name of the precision."""


class TorchEngine(Engine):
    """torch, operation by operation.

    Outputs come back to where the images are.

    Args:
        network: Of any form.
        precision: "fp32"; "bf16" and "fp16" convert the weights.
        threads: CPU threads; a setting of the whole process, put back after each call.
        device: Where to compute.

    Raises:
        UserError: There is no such precision, or no such device here.
    """

    name = "torch"

    def __init__(
        self,
        network: nn.Module,
        *,
        precision: str = "fp32",
        threads: int | None = None,
        device: str = "cpu",
    ) -> None:
        self.precision, self.threads = precision, threads or torch.get_num_threads()
        self.device = open_device(device)
        self._dtype = dtype_of(precision)
        self.network: Any = network.eval()
        if precision != "fp32" or self.device.type != "cpu":
            self.network = copy.deepcopy(network).eval().to(self.device, self._dtype)
        # on a GPU channels are last in memory, as its matrix units and our kernels want them
        on_gpu = self.device.type == "cuda"
        self._layout = torch.channels_last if on_gpu else torch.preserve_format
        if on_gpu:
            self.network.to(memory_format=self._layout)
        self.smallest_prior = getattr(network, "smallest_prior", Engine.smallest_prior)

    def __call__(self, images: Tensor) -> Any:
        """See the base class."""
        before = torch.get_num_threads()
        if before != self.threads:
            torch.set_num_threads(self.threads)
        try:
            with torch.inference_mode():
                outputs = self.network(
                    images.to(self.device, self._dtype, memory_format=self._layout)
                )
        finally:
            if before != self.threads:
                torch.set_num_threads(before)
        if isinstance(outputs, Tensor):
            return outputs.to(images.device, torch.float32)
        return type(outputs)(*(one.to(images.device, torch.float32) for one in outputs))

    def run(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """See the base class."""
        outputs = self(torch.from_numpy(inputs[0]))
        parts = (outputs,) if isinstance(outputs, Tensor) else outputs
        return tuple(part.numpy() for part in parts)


class CompileEngine(TorchEngine):
    """torch.compile: compiled at the first call of each shape, to C++ or, on a GPU, to Triton."""

    name = "compile"

    def __init__(
        self,
        network: nn.Module,
        *,
        precision: str = "fp32",
        threads: int | None = None,
        device: str = "cpu",
    ) -> None:
        super().__init__(network, precision=precision, threads=threads, device=device)
        self.network = torch.compile(self.network)


def use_kernels_of(model: Any, kernels: str, device: str) -> None:
    """`layers.eesp.use_kernels_` on a network for inference, or on that of one of torch's engines.

    Args:
        device: Of the network; an engine computes on its own.

    Raises:
        UserError: There are no such kernels.
    """
    network, place = model, device
    if not isinstance(model, nn.Module):
        network, place = getattr(model, "network", None), str(getattr(model, "device", device))
    if isinstance(network, nn.Module):
        use_kernels_(network.eval(), kernels, place, frozen=True)


def dtype_of(precision: str) -> torch.dtype:
    """What torch computes in.

    Raises:
        UserError: There is no such precision.
    """
    if precision not in DTYPES:
        raise UserError(
            f"torch computes in {', '.join(DTYPES)}, not in {precision}; for int8 give the "
            "artefact of: espnetv2 export ... --to native --precision int8 --calib DIR"
        )
    return DTYPES[precision]


def open_device(name: str) -> torch.device:
    """A device that is there.

    Raises:
        UserError: It is not.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"device {name!r} is not available here; use cpu") from error
    return device
