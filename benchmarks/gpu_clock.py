"""Time, memory and budgets of `benchmarks/gpu.py`: CUDA's own events on a GPU, else the clock."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

BURST_SECONDS = 0.03
"""A turn lasts about this long: shorter ones are noise, longer ones let the GPU change between."""

Call = Callable[[], Any]


class Deadline:
    """Seconds from now on."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds; never below zero."""
        return max(0.0, self._end - time.monotonic())


def wait(device: torch.device) -> None:
    """Until the GPU has done all."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def elapsed(call: Call, count: int, device: torch.device) -> float:
    """Seconds of several calls, from the first one's start to the last one's end."""
    if device.type != "cuda":
        start = time.perf_counter()
        for _ in range(count):
            call()
        return time.perf_counter() - start
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    for _ in range(count):
        call()
    last.record()
    torch.cuda.synchronize()
    return first.elapsed_time(last) / 1000


def interleave(
    calls: Mapping[str, Call], *, device: torch.device, seconds: float, rounds: int = 5
) -> dict[str, dict[str, float]]:
    """Milliseconds of warm calls that take turns, in both directions.

    Args:
        seconds: Of all together, at least so many rounds.
    """
    counts = {}
    for name, call in calls.items():
        wait(device)
        counts[name] = max(1, int(BURST_SECONDS / max(elapsed(call, 1, device), 1e-6)))
    times: dict[str, list[float]] = {name: [] for name in calls}
    deadline, done = Deadline(seconds), 0
    while done < rounds or deadline.left():
        for name in list(calls) if done % 2 == 0 else list(calls)[::-1]:
            wait(device)
            spent = elapsed(calls[name], counts[name], device)
            times[name].append(1000 * spent / counts[name])
        done += 1
    return {name: spread(values) for name, values in times.items()}


def spread(values: list[float]) -> dict[str, float]:
    """Median, tenth and ninetieth of a hundred, and how many."""
    ordered = sorted(values)
    return {
        "ms": statistics.median(ordered),
        "ms_p10": ordered[int(0.1 * (len(ordered) - 1))],
        "ms_p90": ordered[int(0.9 * (len(ordered) - 1))],
        "rounds": len(ordered),
    }


def recorded(call: Call, device: torch.device) -> Call:
    """The call as one CUDA graph, so that its launches cost nothing; on a CPU the call itself."""
    if device.type != "cuda":
        return call
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def held(device: torch.device) -> int:
    """Bytes of tensors on the GPU; 0 on a CPU, where nobody counts."""
    return torch.cuda.memory_allocated() if device.type == "cuda" else 0


def peak(call: Call, before: int, device: torch.device) -> int | None:
    """Most bytes on the GPU during a warm call, beyond those before its side was built."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before
