"""A clock and a counter of energy that do as they are told."""

from espnetv2.profiling.energy import measure

PAUSE = 0.125  # seconds of one call; a sum of powers of two, so that results are exact


class Clock:
    """Time passes only in `sleep`; `watts` says how much power is drawn meanwhile."""

    def __init__(self, watts=8.0):
        self.now, self.used, self.watts, self.listeners = 0.0, 0.0, watts, []

    def perf_counter(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self.used += self.watts * seconds
        for listener in self.listeners:
            listener(seconds)


class Counter:
    method, covers = "fake", "board"

    def __init__(self, clock, stated_rate=1000.0, tick=None):
        self.clock, self.stated_rate, self.tick, self.seen = clock, stated_rate, tick, (-1, 0.0)

    def joules(self):
        if self.tick is None:
            return self.clock.used
        tick = int(self.clock.now / self.tick)
        if tick != self.seen[0]:
            self.seen = (tick, self.clock.used)
        return self.seen[1]


def load(clock, powers):
    """A call that draws the next power, then falls back to the idle one."""

    def run():
        idle, clock.watts = clock.watts, next(powers)
        clock.sleep(PAUSE)
        clock.watts = idle

    return run


def measured(powers=(40.0,), calls=8, counter=None, clock=None, **options):
    """Each repeat has `calls` calls at one of the powers."""
    clock = clock or Clock()
    options = {"images": 4, "repeats": len(powers), "idle_seconds": 0.5} | options
    return measure(
        load(clock, (power for power in powers for _ in range(calls))),
        counter=counter or Counter(clock),
        seconds=(calls - 0.5) * PAUSE,
        clock=clock,
        **options,
    )
