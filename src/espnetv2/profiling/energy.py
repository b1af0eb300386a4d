"""Energy per image, idle power subtracted.

Nothing is estimated: where no counter works the answer is "not available", with a reason.
`docs/energy.md` says what each counter covers, and how wrong it can be.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from espnetv2.errors import UserError
from espnetv2.profiling.counters import Clock, Counter, Survey, find_counters, survey, updates

__all__ = ["Clock", "Counter", "Energy", "Survey", "describe", "find_counters", "measure", "survey"]

_FEWEST_UPDATES = 10  # of the counter in one window: the ends are then wrong by a tenth at most
_LOOK_EVERY = 1.0  # seconds; two looks never miss a wrap-around of RAPL (minutes apart)


@dataclass(frozen=True)
class Energy:
    """What one image costs beyond an idle machine.

    Attributes:
        millijoules_per_image: Median over repeats, idle power subtracted.
        spread: Largest minus smallest repeat, in mJ per image; None for a single repeat.
        idle_watts: Before the load.
        load_watts: Median over repeats, idle power included.
        method: Of the counter.
        covers: "cpu", "gpu" or "board".
        rate: Updates of the counter per second.
        rate_measured: Whether `rate` was measured here, or is the makers' word.
    """

    millijoules_per_image: float
    spread: float | None
    idle_watts: float
    load_watts: float
    method: str
    covers: str
    rate: float
    rate_measured: bool
    repeats: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def describe(energy: Energy | None, reason: str = "") -> str:
    """One line for a table or a message.

    >>> describe(None)
    'not available'
    >>> describe(None, "RAPL: no package")
    'not available (RAPL: no package)'
    """
    if energy is None:
        return f"not available ({reason})" if reason else "not available"
    spread = "" if energy.spread is None else f" (spread {energy.spread:.3g})"
    return (
        f"{energy.millijoules_per_image:.4g} mJ/image{spread}, "
        f"{energy.load_watts:.3g} W under load, {energy.idle_watts:.3g} W idle; "
        f"{energy.method} at {energy.rate:.3g} Hz, repeats {energy.repeats}"
    )


def measure(
    run: Callable[[], None],
    *,
    counter: Counter,
    images: int,
    seconds: float = 5.0,
    repeats: int = 3,
    idle_seconds: float = 2.0,
    clock: Clock = time,
) -> Energy:
    """Energy per image of a call, beyond that of the idle machine.

    Args:
        run: Must be warm, and must not return before its work is done (synchronise a GPU).
        images: That one call processes.
        seconds: Least time of one repeat; the call is repeated until then.

    Raises:
        UserError: The counter stands still or fails, the time is too short for its rate, or the
            load cannot be told from the idle machine.
    """
    if min(images, repeats) < 1:
        raise UserError(f"{images=} and {repeats=} must be 1 or more")
    rate, measured = _rate(counter, clock)
    _refuse_short({"seconds": seconds, "idle_seconds": idle_seconds}, rate, counter.method)
    idle = _watch(lambda: clock.sleep(min(idle_seconds, 0.1)), idle_seconds, counter, clock)
    loads = [_watch(run, seconds, counter, clock) for _ in range(repeats)]
    costs = [
        1000 * (load.joules - idle.watts * load.seconds) / (load.calls * images) for load in loads
    ]
    if median(costs) <= 0:
        raise UserError(
            f"{counter.method}: the load takes no more power than the idle machine "
            f"({idle.watts:.3g} W), so its energy cannot be measured"
        )
    return Energy(
        millijoules_per_image=median(costs),
        spread=max(costs) - min(costs) if repeats > 1 else None,
        idle_watts=idle.watts,
        load_watts=median(load.watts for load in loads),
        method=counter.method,
        covers=counter.covers,
        rate=rate,
        rate_measured=measured,
        repeats=repeats,
    )


@dataclass(frozen=True)
class _Window:
    joules: float
    seconds: float
    calls: int

    @property
    def watts(self) -> float:
        return self.joules / self.seconds


def _watch(step: Callable[[], None], seconds: float, counter: Counter, clock: Clock) -> _Window:
    first, start = counter.joules(), clock.perf_counter()
    calls, looked, now = 0, start, start
    while now - start < seconds:
        step()
        calls, now = calls + 1, clock.perf_counter()
        if now - looked >= _LOOK_EVERY:
            counter.joules()
            looked = now
    used, passed = counter.joules() - first, clock.perf_counter() - start
    if used <= 0:
        raise UserError(f"{counter.method}: the counter did not move in {passed:.2g} s")
    return _Window(used, passed, calls)


def _refuse_short(times: dict[str, float], rate: float, method: str) -> None:
    for name, value in times.items():
        if value * rate < _FEWEST_UPDATES:
            enough = math.ceil(100 * _FEWEST_UPDATES / rate) / 100
            raise UserError(
                f"{name}={value:g} sees too few updates of {method} ({rate:.3g} Hz); "
                f"give {enough:g} or more"
            )


def _rate(counter: Counter, clock: Clock) -> tuple[float, bool]:
    if counter.stated_rate is not None:
        return counter.stated_rate, False
    times = updates(counter, clock, most=20)
    if len(times) < 3:
        raise UserError(f"{counter.method}: the counter does not move, or too slowly")
    return (len(times) - 1) / (times[-1] - times[0]), True
