"""One call over every runtime: a batch of images goes in, the network's outputs come out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from espnetv2.deploy.artefact import Artefact, read_artefact
from espnetv2.deploy.targets import TARGETS, engine_kind
from espnetv2.errors import UserError
from espnetv2.models.espnetv2_ssd import RawDetections


class Engine(ABC):
    """A network in a runtime.

    Calling it is calling the network, so that prediction and evaluation take either. Artefacts
    with a fixed batch are called several times for a larger one.

    Attributes:
        name: Key of `targets.ENGINES`.
        precision: What the runtime computes in, as it says itself.
        threads: That it uses.
        artefact: What is run; None for torch's own engines.
        smallest_prior: Of a detector; see `models.espnetv2_ssd.SSD`.
    """

    name: str
    precision: str
    threads: int
    artefact: Artefact | None = None
    smallest_prior: float = 0.1

    @abstractmethod
    def run(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """Outputs for inputs, in the artefact's order, shapes and types."""

    def __call__(self, images: Tensor) -> Any:
        """The network's outputs.

        Shape: (B, 3, H, W) -> logits, or the raw detections of a detector

        Raises:
            UserError: The artefact is of another size.
        """
        given = images.numpy()
        if self.artefact is not None and self.artefact.inputs[0].dtype == "uint8":
            given = given.round().clip(0, 255).astype(np.uint8)
        outputs = tuple(torch.from_numpy(one) for one in self.run_batch(given))
        return RawDetections(*outputs) if len(outputs) == 2 else outputs[0]

    def run_batch(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        """`run` for any number of images; the last call is filled up where the batch is fixed."""
        artefact = self.artefact
        if artefact is None:
            return self.run(images)
        if artefact.size is not None and images.shape[-2:] != artefact.size:
            own, given = ("x".join(map(str, size)) for size in (artefact.size, images.shape[-2:]))
            raise UserError(
                f"{artefact.folder} takes pictures of {own}, not {given}; export it with "
                f"--size {given} or --dynamic"
            )
        batch = artefact.batch
        if batch is None or batch == len(images):
            return self.run(np.ascontiguousarray(images))
        found = []
        for start in range(0, len(images), batch):
            part = images[start : start + batch]
            lacking = [(0, batch - len(part))] + [(0, 0)] * (images.ndim - 1)
            found.append([one[: len(part)] for one in self.run(np.pad(part, lacking))])
        return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))


def open_artefact(place: str | Path, *, threads: int | None = None) -> Engine:
    """The engine of an exported network.

    Args:
        place: Its folder or its `export.json`.
        threads: CPU threads; as many as torch uses by default.

    Raises:
        UserError: No sound artefact, or no engine for it here.
    """
    artefact = read_artefact(place)
    engine = TARGETS[artefact.target].engine if artefact.target in TARGETS else None
    if engine is None:
        raise UserError(f"{place}: a {artefact.target} artefact cannot be run on this machine")
    kind = engine_kind(engine)
    opened: Engine = kind(artefact, threads=threads or torch.get_num_threads())
    opened.smallest_prior = artefact.options.get("smallest_prior", Engine.smallest_prior)
    return opened
