"""Compiles ahead of `benchmarks/gpu.py`: processes side by side fill the caches on disk.

Compiling is a processor's work and takes most of a run, one network after the other. Side by side
it takes as long as the slowest; what is timed later finds the compiled code in the cache.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence

from gpu_clock import Deadline
from gpu_plan import COMPARISONS, GRAPHS
from gpu_sides import Side

CHECKS = 6
"""Processes that share the cases of the check."""

LOOK_SECONDS = 0.2


def sides_ahead() -> dict[str, Side]:
    """All sides that compile something, by a name for the command line."""
    groups = {**COMPARISONS, "energy": [one for one in GRAPHS if one.batch > 1]}
    return {
        f"{part}/{side.name}": side
        for part, sides in groups.items()
        for side in sides
        if side.compiled or side.kernels == "fused"
    }


def names_ahead(only: Sequence[str]) -> list[str]:
    """What `--warm` takes: the check first, then sides of the parts that are asked for."""
    sides = [name for name in sides_ahead() if not only or name.partition("/")[0] in only]
    return [f"check/{number}" for number in range(CHECKS)] + ["network", *sides]


def side_by_side(
    commands: Mapping[str, Sequence[str]], *, jobs: int, deadline: Deadline
) -> dict[str, str]:
    """Run commands, so many at a time, in order; how each of them ended, or that it did not begin.

    Each may start two compilers of its own. Those that outlast the deadline are stopped.
    """
    environment = os.environ | {"TORCHINDUCTOR_COMPILE_THREADS": "2", "OMP_NUM_THREADS": "1"}
    waiting, running = list(commands), {}
    found: dict[str, str] = {}
    while (waiting or running) and deadline.left():
        while waiting and len(running) < jobs:
            name = waiting.pop(0)
            running[name] = subprocess.Popen(
                list(commands[name]), stdout=subprocess.DEVNULL, env=environment
            )
        for name, process in list(running.items()):
            if (code := process.poll()) is not None:
                found[name] = "done" if code == 0 else f"ended with code {code}"
                del running[name]
        time.sleep(LOOK_SECONDS if running else 0)
    for name, process in running.items():
        process.kill()
        process.wait()
        found[name] = "stopped"
    return found | dict.fromkeys(waiting, "not begun")
