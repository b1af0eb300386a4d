"""ExecuTorch as an engine, by the Python runtime of its package."""

from __future__ import annotations

import weakref
from typing import Any, ClassVar

import numpy as np
import torch

from espnetv2.deploy.artefact import Artefact
from espnetv2.deploy.engines import Engine
from espnetv2.deploy.quiet import quiet
from espnetv2.deploy.to_executorch import SMALLEST
from espnetv2.errors import UserError


class ExecuTorchEngine(Engine):
    """A .pte file.

    XNNPACK's threads belong to the process, and a program that is loaded holds on to them. So an
    engine with another number of threads unloads every engine's program when its turn comes; each
    loads its own again at its next call. Engines that take turns should agree on the number.

    Attributes:
        precision: The artefact's: in such a file every operation has its types, a runtime has
            nothing to choose.
    """

    name = "executorch"
    _loaded: ClassVar[weakref.WeakSet[ExecuTorchEngine]] = weakref.WeakSet()

    def __init__(self, artefact: Artefact, *, threads: int) -> None:
        self.artefact, self.precision, self.threads = artefact, artefact.precision, threads
        self._method: Any = None
        self._bounds: tuple[int, ...] = ()
        self._smallest = 1
        self._load()

    def run(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """See the base class.

        Raises:
            UserError: A picture is larger or smaller than a dynamic artefact takes.
        """
        if self._method is None or _runtime()._threadpool_get_thread_count() != self.threads:
            self._load()
        given = [torch.from_numpy(np.ascontiguousarray(one)) for one in inputs]
        artefact = self.artefact
        if artefact is None or not artefact.dynamic or artefact.task == "language":
            return self._execute(given)
        self._check(given[0].shape)
        most = self._bounds[0]
        found = [
            self._execute([one[start : start + most] for one in given])
            for start in range(0, len(given[0]), most)
        ]
        return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))

    def _execute(self, inputs: list[torch.Tensor]) -> tuple[np.ndarray, ...]:
        outputs = self._method.execute([one.contiguous() for one in inputs])
        return tuple(one.numpy() for one in outputs)

    def _check(self, shape: torch.Size) -> None:
        largest, given = self._bounds[-2:], shape[-2:]
        smallest = self._smallest
        if any(side > most for side, most in zip(given, largest, strict=True)):
            wanted = f"up to {largest[0]}x{largest[1]}"
        elif min(given) < smallest:
            wanted = f"from {smallest}x{smallest}"
        else:
            return
        assert self.artefact is not None
        raise UserError(
            f"{self.artefact.folder} takes pictures {wanted}, not {given[0]}x{given[1]}; export "
            f"it with --size {given[0]}x{given[1]}"
        )

    def _load(self) -> None:
        assert self.artefact is not None
        runtime = _runtime()
        if runtime._threadpool_get_thread_count() != self.threads:
            for engine in list(self._loaded):
                engine._method = None
            with quiet(native=True):  # C++ tells of its threads
                runtime._unsafe_reset_threadpool(self.threads)
        try:
            program = runtime._load_program(str(self.artefact.path))
            self._method = _Method(program)
        except RuntimeError as error:
            raise UserError(f"{self.artefact.path} is damaged ({error}); export again") from error
        self._bounds = self._method.bounds
        self._smallest = self._method.smallest
        self._loaded.add(self)


class _Method:
    """A loaded program; whatever it needs lives as long as it does."""

    def __init__(self, program: Any) -> None:
        self._program = program
        self._method = program.load_method("forward")
        self.bounds = tuple(self._method.method_meta().input_tensor_meta(0).sizes())
        names = {program.get_method_name(index) for index in range(program.num_methods())}
        self.smallest = 1
        if SMALLEST in names:
            self.smallest = int(program.load_method(SMALLEST).call(())[0])

    def execute(self, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        outputs: list[torch.Tensor] = self._method.call(inputs)
        return outputs


def _runtime() -> Any:
    with quiet("torch.utils._pytree"):  # the whole interface says that it is experimental
        from executorch.extension.pybindings import portable_lib
    return portable_lib
