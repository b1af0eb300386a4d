"""Counters of energy in the hardware: NVIDIA GPUs, processor packages, Jetson rails.

A counter that cannot be read, or that stands still, is no counter; `survey` says why.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple, Protocol

from espnetv2.errors import UserError
from espnetv2.extras import require

_POWERCAP = "sys/class/powercap"
_JETSON_MARKS = ("etc/nv_tegra_release", "usr/lib/aarch64-linux-gnu/tegra")


class Counter(Protocol):
    """Energy used since some moment, in joules; `UserError` when it cannot be read."""

    @property
    def method(self) -> str:
        """What is read, for people."""

    @property
    def covers(self) -> Literal["cpu", "gpu", "board"]:
        """The part of the machine whose energy this is."""

    @property
    def stated_rate(self) -> float | None:
        """Updates per second by its makers' word; None where `measure` must find out."""

    def joules(self) -> float:
        """Grows with time."""


class Clock(Protocol):
    """What is needed of the module `time`."""

    def perf_counter(self) -> float:
        """Seconds since some moment."""

    def sleep(self, seconds: float, /) -> None:
        """Wait."""


class Survey(NamedTuple):
    """Counters that work here, and one line for each that does not."""

    counters: list[Counter]
    reasons: list[str]


def find_counters() -> list[Counter]:
    """The counters that work on this machine; none is a usual answer."""
    return survey().counters


def survey(root: Path = Path("/"), clock: Clock = time) -> Survey:
    """Look for every kind of counter; only those count that can be read and that move.

    Args:
        root: Of the file system.
    """
    found = Survey([], [])
    for look in (_gpus, _packages, _rails):
        try:
            candidates = look(root)
        except UserError as error:
            found.reasons.append(str(error))
            continue
        for counter in candidates:
            if problem := _problem(counter, clock):
                found.reasons.append(problem)
            else:
                found.counters.append(counter)
    return found


def updates(counter: Counter, clock: Clock, *, most: int, patience: float = 3.0) -> list[float]:
    """When the counter moved: at most so many times, waiting at most so many seconds."""
    times: list[float] = []
    last, end = counter.joules(), clock.perf_counter() + patience
    while len(times) < most and clock.perf_counter() < end:
        clock.sleep(0.001)
        if (now := counter.joules()) != last:
            times.append(clock.perf_counter())
            last = now
    return times


class NvmlTotal:
    """Energy of one GPU's board since the driver was loaded; Volta or newer."""

    covers: Literal["gpu"] = "gpu"
    stated_rate = None

    def __init__(self, nvml: Any, index: int) -> None:
        self._nvml, self.index = nvml, index
        self._handle = nvml.nvmlDeviceGetHandleByIndex(index)
        name = nvml.nvmlDeviceGetName(self._handle)
        self.method = f"NVML total energy, GPU {index} ({name})"

    def joules(self) -> float:
        """Grows with time."""
        try:
            return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1000
        except self._nvml.NVMLError as error:
            raise UserError(f"{self.method}: {error}") from error


class Rapl:
    """Energy of all processor packages, from Linux's powercap files.

    Core and uncore zones are parts of their package, and a `psys` zone holds the packages, so
    only packages are added up. Memory (`dram`) is left out: few machines show it.
    """

    covers: Literal["cpu"] = "cpu"
    stated_rate = 1000.0

    def __init__(self, root: Path = Path("/", _POWERCAP)) -> None:
        tops = sorted(zone for zone in root.glob("intel-rapl:*") if zone.name.count(":") == 1)
        named = {zone: _text(zone / "name") for zone in tops}
        packages = [zone for zone in tops if named[zone].startswith("package")]
        if not packages:
            raise UserError("RAPL: no intel-rapl package here (virtual machines show none)")
        self.method = f"RAPL {' + '.join(named[zone] for zone in packages)}"
        self._ranges = {zone: _number(zone / "max_energy_range_uj") for zone in packages}
        self._last = {zone: _number(zone / "energy_uj") for zone in packages}
        self._microjoules = 0

    def joules(self) -> float:
        """Grows with time, also when a package's counter begins again at zero."""
        for zone, last in self._last.items():
            now = _number(zone / "energy_uj")
            self._microjoules += now - last + (self._ranges[zone] if now < last else 0)
            self._last[zone] = now
        return self._microjoules / 1e6


class JetsonRails:
    """Energy of a Jetson's power rails; a process of the package zeus adds up power samples."""

    covers: Literal["board"] = "board"
    stated_rate = 10.0  # zeus 0.16 takes a sample each 0.1 s, and at each question

    def __init__(self, rails: Any) -> None:
        self._rails = rails
        known = _answer(rails.get_available_metrics)
        total = {"total_energy_mj"} & known
        self._fields = sorted(total or {"cpu_energy_mj", "gpu_energy_mj"} & known)
        if not self._fields:
            raise UserError("Jetson rails: zeus finds no power rail that it knows")
        names = " + ".join(field.removesuffix("_energy_mj") for field in self._fields)
        self.method = f"Jetson rails through zeus, {names}"

    def joules(self) -> float:
        """Grows with time."""
        read = self._rails.get_total_energy_consumption
        _answer(read)  # holds the sample before this question, and makes zeus take another
        sums = _answer(read)
        return float(sum(getattr(sums, field) for field in self._fields)) / 1000


def _problem(counter: Counter, clock: Clock) -> str:
    try:
        moves = bool(updates(counter, clock, most=1))
    except UserError as error:
        return str(error)
    return "" if moves else f"{counter.method}: the counter does not move"


def _gpus(root: Path) -> list[Counter]:
    nvml = _extra("pynvml", "NVML")
    try:
        nvml.nvmlInit()
        return [NvmlTotal(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
    except nvml.NVMLError as error:
        raise UserError(f"NVML: {error}") from error


def _packages(root: Path) -> list[Counter]:
    return [Rapl(root / _POWERCAP)]


def _rails(root: Path) -> list[Counter]:
    if not any((root / mark).exists() for mark in _JETSON_MARKS):
        raise UserError("Jetson rails: this machine is no Jetson")
    _extra("zeus", "Jetson rails")  # takes seconds, hence after the look at the marks
    soc = _extra("zeus.device.soc.jetson", "Jetson rails")
    try:
        return [JetsonRails(soc.Jetson())]
    except (soc.ZeusJetsonInitError, OSError) as error:
        raise UserError(f"Jetson rails: {error}") from error


def _extra(module: str, kind: str) -> ModuleType:
    try:
        return require(module, extra="energy")
    except UserError as error:
        raise UserError(f"{kind}: {error}") from error


def _answer(question: Callable[[], Any]) -> Any:
    try:
        return question()
    except queue.Empty as error:
        raise UserError("Jetson rails: zeus does not answer") from error


def _number(path: Path) -> int:
    text = _text(path)
    if not text.isdigit():
        raise UserError(f"RAPL: {path} holds {text!r}, not a number")
    return int(text)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except PermissionError as error:
        raise UserError(
            f"RAPL: only root may read {path}; run as root, or once after each start: "
            f"sudo chmod a+r {path.parent.parent}/intel-rapl:*/{path.name}"
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(f"RAPL: {path} cannot be read: {error}") from error
