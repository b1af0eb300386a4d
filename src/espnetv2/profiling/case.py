"""What a benchmark measures: a network in an engine, under conditions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Case:
    """One row to measure.

    Attributes:
        model: A published name, a weights file, or a name of the catalog (random weights).
        engine: Key of `ENGINES`.
        form: "deploy", or "plain" for the train form as it is.
        precision: To compute in.
        size: (height, width); the network's own where None.
        batch: Pictures of a call.
        threads: Of the CPU.
        device: Where torch's own engines compute.
        kernels: Of EESP units in torch's engines: "reference", "fused" or "auto".
    """

    model: str
    engine: str
    form: str = "deploy"
    precision: str = "fp32"
    size: tuple[int, int] | None = None
    batch: int = 1
    threads: int = 1
    device: str = "cpu"
    kernels: str = "auto"


def case_of(values: Mapping[str, Any]) -> Case:
    """A case from JSON's values; `dataclasses.asdict` is the other way."""
    size = values.get("size")
    return Case(**{**values, "size": None if size is None else tuple(size)})
