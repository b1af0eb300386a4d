"""The native engine: `native/`, built for these networks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import espnetv2_native
import numpy as np
from torch import nn

from espnetv2.deploy.artefact import Artefact
from espnetv2.deploy.engines import Engine
from espnetv2.deploy.to_native import content_of
from espnetv2.errors import UserError

_KEPT = 4
"""Sizes whose memory is kept; the one that was used longest ago goes first."""


class NativeEngine(Engine):
    """Computes in float32, bfloat16 or int8 on the best instruction set of the processor.

    Every size of input has memory of its own, which is planned when the size is first seen.

    Args:
        artefact: Of the target "native", which takes every size.
        threads: That share the rows of a picture.

    Raises:
        UserError: The file is damaged, or of another version.
    """

    name = "native"

    def __init__(self, artefact: Artefact, *, threads: int) -> None:
        self.artefact = artefact
        try:
            self._start(espnetv2_native.Model(str(artefact.path)), threads)
        except ValueError as error:
            raise UserError(f"{error}; export again") from error

    @classmethod
    def of(
        cls,
        network: nn.Module,
        *,
        precision: str = "fp32",
        threads: int,
        calibration: Sequence[np.ndarray] = (),
    ) -> NativeEngine:
        """The engine of a network in the deploy form, without a file.

        Args:
            network: In the deploy form.
            precision: To compute in.
            threads: That share the rows of a picture.
            calibration: For int8, inputs as the network takes them, each (B, 3, H, W).

        Raises:
            UserError: The network has a part that the engine lacks.
        """
        engine = cls.__new__(cls)
        content = content_of(network, precision=precision, notes={}, calibration=calibration)
        engine._start(espnetv2_native.Model.of(content), threads)
        return engine

    def _start(self, model: espnetv2_native.Model, threads: int) -> None:
        self.threads, self.precision = threads, model.metadata("precision") or "fp32"
        self._model = model
        self._contexts: OrderedDict[tuple[int, int, int], espnetv2_native.Context] = OrderedDict()

    def run(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """See the base class."""
        image = np.ascontiguousarray(inputs[0], dtype=np.float32)
        batch, _, height, width = image.shape
        context = self._context((batch, height, width))
        return tuple(context.run(image))

    def _context(self, size: tuple[int, int, int]) -> espnetv2_native.Context:
        if size not in self._contexts:
            try:
                self._contexts[size] = self._model.open(*size, self.threads)
            except ValueError as error:
                raise UserError(f"{'x'.join(map(str, size[1:]))}: {error}") from error
        self._contexts.move_to_end(size)
        while len(self._contexts) > _KEPT:
            self._contexts.popitem(last=False)
        return self._contexts[size]
