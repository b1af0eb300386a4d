"""torch itself as an engine, plain and compiled, of the train form or the deploy form."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from espnetv2.deploy.engines import Engine

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TorchEngine(Engine):
    """torch, operation by operation.

    Args:
        network: Of any form.
        precision: "fp32"; "bf16" and "fp16" convert the weights.
        threads: CPU threads; a setting of the whole process, put back after each call.
    """

    name = "torch"

    def __init__(
        self, network: nn.Module, *, precision: str = "fp32", threads: int | None = None
    ) -> None:
        self.precision, self.threads = precision, threads or torch.get_num_threads()
        self._dtype = _DTYPES[precision]
        self.network: Any = network.eval()
        if precision != "fp32":
            import copy

            self.network = copy.deepcopy(network).eval().to(self._dtype)
        self.smallest_prior = getattr(network, "smallest_prior", Engine.smallest_prior)

    def __call__(self, images: Tensor) -> Any:
        """See the base class."""
        before = torch.get_num_threads()
        if before != self.threads:
            torch.set_num_threads(self.threads)
        try:
            with torch.inference_mode():
                outputs = self.network(images.to(self._dtype))
        finally:
            if before != self.threads:
                torch.set_num_threads(before)
        if isinstance(outputs, Tensor):
            return outputs.float()
        return type(outputs)(*(one.float() for one in outputs))

    def run(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """See the base class."""
        outputs = self(torch.from_numpy(inputs[0]))
        parts = (outputs,) if isinstance(outputs, Tensor) else outputs
        return tuple(part.numpy() for part in parts)


class CompileEngine(TorchEngine):
    """torch.compile: compiled at the first call of each shape, by a C++ compiler."""

    name = "compile"

    def __init__(
        self, network: nn.Module, *, precision: str = "fp32", threads: int | None = None
    ) -> None:
        super().__init__(network, precision=precision, threads=threads)
        self.network = torch.compile(self.network)
