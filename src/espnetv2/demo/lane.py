"""The queue in front of the engines: one run at a time, first come first served. No torch."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from time import perf_counter
from typing import TypeVar

T = TypeVar("T")


class FullError(Exception):
    """As many wait as may wait.

    Attributes:
        waiting: How many.
        seconds: After which it is worth trying again.
    """

    def __init__(self, waiting: int, seconds: int) -> None:
        super().__init__(f"{waiting} requests are waiting already; try again in {seconds} s")
        self.waiting, self.seconds = waiting, seconds


class GoneError(Exception):
    """Who asked has left, so nothing was computed."""


class Lane:
    """Runs jobs one after the other in a single thread.

    Two runs at once would share the cores, and both would measure wrong milliseconds. One thread
    for all of them also keeps the pools of the runtimes from multiplying.

    Args:
        capacity: Jobs that may wait or run.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._lock = threading.Lock()
        self._tickets: dict[object, str] = {}  # in order; the first is being served
        self._mean = 0.1  # seconds of a job

    @property
    def waiting(self) -> int:
        """Jobs that wait or run."""
        return len(self._tickets)

    def position(self, ticket: str) -> int | None:
        """How many come before a ticket: 0 is being served, None is not here."""
        with self._lock:
            order = list(self._tickets.values())
        return order.index(ticket) if ticket in order else None

    @asynccontextmanager
    async def place(self, ticket: str) -> AsyncIterator[None]:
        """Stand in the queue, from before the engine is loaded until the answer is there.

        Args:
            ticket: To ask `position` with.

        Raises:
            FullError: Too many wait.
        """
        key = object()
        with self._lock:
            if len(self._tickets) >= self.capacity:
                raise FullError(len(self._tickets), max(1, round(len(self._tickets) * self._mean)))
            self._tickets[key] = ticket
        try:
            yield
        finally:
            with self._lock:
                del self._tickets[key]

    async def run(self, job: Callable[[], T], gone: Callable[[], Awaitable[bool]]) -> T:
        """The job's result, when its turn has come.

        Args:
            job: What to do.
            gone: Whether who asked has left; such a job is not begun.

        Raises:
            GoneError: Nobody waits for the answer any more.
        """
        future = self._pool.submit(self._timed, job)
        wrapped = asyncio.wrap_future(future)
        while not wrapped.done():
            await asyncio.wait([wrapped], timeout=0.5)
            if not wrapped.done() and not future.running() and await gone():
                future.cancel()
                raise GoneError
        return wrapped.result()

    def turn(self, job: Callable[[], T]) -> T:
        """The job's result, for threads: a clip's frames take turns with the pictures."""
        future: Future[T] = self._pool.submit(job)
        return future.result()

    def close(self) -> None:
        """Begin nothing any more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _timed(self, job: Callable[[], T]) -> T:
        start = perf_counter()
        try:
            return job()
        finally:
            self._mean += 0.2 * (perf_counter() - start - self._mean)
