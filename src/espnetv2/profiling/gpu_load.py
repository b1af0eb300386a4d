"""How busy a GPU is while something runs, and at which clocks, as its driver says (NVML).

The clocks are read and never set.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import Any

from espnetv2.errors import UserError
from espnetv2.extras import require
from espnetv2.profiling.counters import Clock

_SETTLING = 1.0  # seconds; the driver's shares are of up to so long before the question


@dataclass(frozen=True)
class GpuLoad:
    """Of one GPU under a load.

    Attributes:
        gpu: Its name.
        utilisation: Percent of the time in which a kernel ran.
        memory_utilisation: Percent of the time in which its memory was read or written.
        sm_mhz: Clock of the multiprocessors, median.
        memory_mhz: Clock of the memory, median.
        most_sm_mhz: The highest that the GPU knows.
        samples: That were taken.
    """

    gpu: str
    utilisation: float
    memory_utilisation: float
    sm_mhz: float
    memory_mhz: float
    most_sm_mhz: float
    samples: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def watch(
    run: Callable[[], None],
    *,
    index: int = 0,
    seconds: float = 3.0,
    clock: Clock = time,
) -> GpuLoad:
    """Repeat a call, which must be warm and short (a tenth of a second), and look in between.

    Args:
        index: Of the GPU, as the driver numbers them.
        seconds: Of looking, after one of settling.

    Raises:
        UserError: The driver, its package or one of the values is not there.
    """
    nvml = _nvml()
    looks: list[tuple[float, ...]] = []
    try:
        nvml.nvmlInit()
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        start = clock.perf_counter()
        while (passed := clock.perf_counter() - start) < _SETTLING + seconds:
            run()
            if passed >= _SETTLING:
                looks.append(_look(nvml, handle))
        name = nvml.nvmlDeviceGetName(handle)
        most = nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM)
    except nvml.NVMLError as error:
        raise UserError(f"NVML: {error}") from error
    if not looks:
        raise UserError(f"NVML: one call takes longer than {_SETTLING + seconds:g} s")
    busy, moving, sm, memory = zip(*looks, strict=True)
    return GpuLoad(name, fmean(busy), fmean(moving), median(sm), median(memory), most, len(looks))


def _look(nvml: Any, handle: Any) -> tuple[float, ...]:
    shares = nvml.nvmlDeviceGetUtilizationRates(handle)
    clocks = [
        nvml.nvmlDeviceGetClockInfo(handle, kind)
        for kind in (nvml.NVML_CLOCK_SM, nvml.NVML_CLOCK_MEM)
    ]
    return (float(shares.gpu), float(shares.memory), *map(float, clocks))


def _nvml() -> Any:
    try:
        return require("pynvml", extra="energy")
    except UserError as error:
        raise UserError(f"NVML: {error}") from error
