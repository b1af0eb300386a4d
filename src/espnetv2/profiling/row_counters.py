"""What counters in the hardware say of one row of a benchmark: energy, load, kernels."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from espnetv2.errors import UserError
from espnetv2.profiling import gpu_load, kernel_counters
from espnetv2.profiling.case import Case
from espnetv2.profiling.counters import Counter, NvmlTotal
from espnetv2.profiling.energy import describe, measure, survey
from espnetv2.profiling.latency import Worker

_BURST_MS = 20.0  # of calls without a look at a counter in between
_NO_GPU = "the network runs on the CPU; give --device cuda or --engine cudagraph"


def energy_of(worker: Worker, row: dict[str, Any]) -> dict[str, Any]:
    """Millijoules of an image, or why there are none."""
    found = survey()
    fitting = [one for one in found.counters if _fits(one, row["device"])]
    if not fitting:
        return {"millijoules_per_image": describe(None, "; ".join(found.reasons))}
    calls = _calls(row)
    try:
        spent = measure(
            lambda: _run(worker, calls), counter=fitting[0], images=calls * row["batch"]
        )
    except UserError as error:
        return {"millijoules_per_image": describe(None, str(error))}
    return {"millijoules_per_image": spent.millijoules_per_image, "energy": spent.to_json()}


def counted(
    worker: Worker, case: Case, row: dict[str, Any], *, patience: float = 300.0
) -> dict[str, Any]:
    """How busy the GPU is while the worker runs, and the counters of one call's kernels.

    Each of the two is a dictionary, or a text that says "not available" and why.

    Args:
        patience: Seconds for the kernels, of which each runs several times.
    """
    if not case.device.startswith("cuda"):
        return {"gpu_load": _lacking(_NO_GPU), "gpu_kernels": _lacking(_NO_GPU)}
    calls = _calls(row)

    def load() -> dict[str, Any]:
        index = gpu_index(case.device)
        return gpu_load.watch(lambda: _run(worker, calls), index=index).to_json()

    def kernels() -> dict[str, Any]:
        text = json.dumps(asdict(case))
        program = [sys.executable, "-m", "espnetv2.profiling.counted_run", text]
        profiler = kernel_counters.find_profiler()
        return kernel_counters.count(program, profiler=profiler, patience=patience).to_json()

    return {"gpu_load": _or_why(load), "gpu_kernels": _or_why(kernels)}


def gpu_index(device: str) -> int:
    """The GPU that "cuda" or "cuda:1" names; the driver's number where CUDA does not renumber.

    >>> gpu_index("cuda"), gpu_index("cuda:1")
    (0, 1)
    """
    number = device.partition(":")[2]
    return int(number) if number else 0


def _fits(counter: Counter, device: str) -> bool:
    if counter.covers == "board":
        return True
    if device.startswith("cuda"):
        return isinstance(counter, NvmlTotal) and counter.index == gpu_index(device)
    return counter.covers == "cpu" and device == "cpu"


def _calls(row: dict[str, Any]) -> int:
    return max(1, int(_BURST_MS / row["ms_median"]))


def _run(worker: Worker, calls: int) -> None:
    worker.run(calls)


def _or_why(question: Callable[[], dict[str, Any]]) -> dict[str, Any] | str:
    try:
        return question()
    except UserError as error:
        return _lacking(str(error))


def _lacking(reason: str) -> str:
    return f"not available ({reason})"
