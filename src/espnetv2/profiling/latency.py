"""Milliseconds of several engines, each in a process of its own, taking turns."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import random
import resource
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from espnetv2.errors import UserError

BURST_SECONDS = 0.02
"""A turn lasts about this long: short ones are noise, long ones let the machine change between."""

T = TypeVar("T")

Open = Callable[[], Callable[[], Any]]
"""What a process does first; gives the call to be timed. It must be picklable."""


@dataclass(frozen=True)
class Timing:
    """Of one call.

    Attributes:
        ms_min: Fastest burst's mean.
        ms_median: Over all bursts.
        ms_p95: Likewise.
        calls: That were timed.
        peak_memory_bytes: Most memory of the process beyond what it had before the engine was
            opened.
    """

    ms_min: float
    ms_median: float
    ms_p95: float
    calls: int
    peak_memory_bytes: int


@contextmanager
def _ignoring_ctrl_c() -> Iterator[None]:
    """Processes that are started meanwhile ignore it for good."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Worker:
    """A process that holds one engine and runs it when told.

    Pinned to as many cores as it has threads, where the system lets it.
    """

    def __init__(self, open_engine: Open, *, threads: int) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(
            target=_serve, args=(theirs, open_engine, threads), daemon=True
        )
        with _ignoring_ctrl_c():  # who ends this process ends the worker, without its traceback
            self._process.start()
        theirs.close()
        self.times: list[float] = []
        self.calls = 0
        self._burst = 1

    def open(self) -> dict[str, Any]:
        """Wait until the engine is open and warm; gives what it says of itself.

        Raises:
            UserError: It could not be opened.
        """
        said: dict[str, Any] = self._hear()
        seconds = said.pop("seconds")
        self._burst = max(1, int(BURST_SECONDS / max(seconds, 1e-6)))
        return said

    def turn(self) -> None:
        """Time one burst."""
        self.times.append(self.run(self._burst) / self._burst)
        self.calls += self._burst

    def run(self, calls: int) -> float:
        """Call the engine several times; gives the seconds."""
        self._pipe.send(calls)
        seconds: float = self._hear()
        return seconds

    def timing(self) -> Timing:
        """What the bursts said."""
        self._pipe.send("memory")
        peak: int = self._hear()
        ms = sorted(1000 * value for value in self.times)
        return Timing(
            ms_min=ms[0],
            ms_median=statistics.median(ms),
            ms_p95=ms[min(len(ms) - 1, int(0.95 * len(ms)))],
            calls=self.calls,
            peak_memory_bytes=peak,
        )

    def close(self) -> None:
        """End the process."""
        with suppress(OSError):
            self._pipe.send("end")
        self._process.join(timeout=5)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join(timeout=5)

    def _hear(self) -> Any:
        try:
            kind, value = self._pipe.recv()
        except EOFError as error:
            self._process.join(timeout=10)
            raise UserError(
                f"an engine's process ended with code {self._process.exitcode}; is memory enough?"
            ) from error
        if kind == "error":
            raise UserError(value)
        return value


def take_turns(workers: Sequence[Worker], *, seconds: float, rounds: int = 10) -> None:
    """Let the workers run in turn for a time and at least some rounds."""
    end = time.perf_counter() + seconds
    for count, order in enumerate(orders(workers)):
        if count >= rounds and time.perf_counter() >= end:
            return
        for worker in order:
            worker.turn()


def orders(sides: Sequence[T]) -> Iterator[list[T]]:
    """An order for each round, without end.

    Any fixed order favours somebody: who follows himself finds his weights in the caches, and who
    always follows the same engine meets its threads, which wait awake. So each round is shuffled
    (the same way in every run), and nobody follows himself.

    Args:
        sides: That take turns.
    """
    chance = random.Random(0)
    last: T | None = None
    while True:
        order = chance.sample(sides, len(sides))
        if len(order) > 1 and order[0] is last:
            order.append(order.pop(0))
        last = order[-1]
        yield order


def _serve(pipe: Connection, open_engine: Open, threads: int) -> None:
    """The worker's process."""
    import torch

    _pin(threads)
    torch.set_num_threads(threads)
    begin_memory()
    try:
        call = open_engine()
        for _ in range(3):  # the first calls allocate, compile and choose kernels
            call()
        start = time.perf_counter()
        call()
        said = getattr(call, "said", {})
        pipe.send(("ready", {"seconds": time.perf_counter() - start, **said}))
    except UserError as error:
        pipe.send(("error", str(error)))
        return
    except Exception as error:  # it is told in the parent, where somebody reads it
        pipe.send(("error", f"{type(error).__name__}: {error}"))
        return
    while True:
        try:
            order = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        if order == "end":
            return
        if order == "memory":
            pipe.send(("memory", _peak() - _before))
            continue
        start = time.perf_counter()
        for _ in range(order):
            call()
        pipe.send(("seconds", time.perf_counter() - start))


def _pin(threads: int) -> None:
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, set(cores[: max(threads, 1)]))


def begin_memory() -> None:
    """Count this process's memory from here on."""
    global _before
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # give back what was freed, or it hides what comes
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # peak = what is held now
    _before = _peak()


_before = 0


def _peak() -> int:
    """Most memory that this process held since `begin_memory`, in bytes."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # since its start
        return peak if sys.platform == "darwin" else peak * 1024
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
