"""What a GPU's own counters say of every kernel of a call, through NVIDIA's profiler `ncu`.

Nothing is estimated: where the profiler cannot run, `UserError` says why in one line.
"""

from __future__ import annotations

import csv
import math
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from espnetv2.errors import UserError

_DURATION = "gpu__time_duration.sum"
_ACTIVE = "smsp__cycles_active.avg.pct_of_peak_sustained_elapsed"
_WARP_INSTRUCTIONS = "smsp__inst_executed.sum"
_THREAD_INSTRUCTIONS = "smsp__thread_inst_executed.sum"
_SECTORS = tuple(f"l1tex__t_sectors_pipe_lsu_mem_global_op_{way}.sum" for way in ("ld", "st"))
_ASKED = tuple(
    f"smsp__sass_average_data_bytes_per_sector_mem_global_op_{way}.pct" for way in ("ld", "st")
)
METRICS = (_DURATION, _ACTIVE, _WARP_INSTRUCTIONS, _THREAD_INSTRUCTIONS, *_SECTORS, *_ASKED)
"""What is asked of `ncu`, by its names."""

WARP = 32
"""Threads that a GPU runs in step."""

_USUAL_PLACES = ("usr/local/cuda*/bin/ncu", "opt/nvidia/nsight-compute/*/ncu")


@dataclass(frozen=True)
class KernelCounters:
    """Of all kernels of one call.

    Paper: espnet, the metrics that it adds for edge devices; `docs/energy.md` says what each is.

    Attributes:
        kernels: That ran.
        gpu_microseconds: Of all, without the gaps between them.
        sm_active: Percent of the time with work on a multiprocessor, mean over multiprocessors
            and, weighted by time, over kernels.
        memory_efficiency: Percent of the bytes moved for loads and stores that threads asked
            for; None where no kernel loads or stores by itself.
        warp_execution_efficiency: Percent of a warp's threads that take part in an instruction,
            mean over all instructions.
    """

    kernels: int
    gpu_microseconds: float
    sm_active: float
    memory_efficiency: float | None
    warp_execution_efficiency: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def find_profiler(root: Path = Path("/")) -> str:
    """Where `ncu` is: on the PATH, or where NVIDIA's packages put it.

    Args:
        root: Of the file system.

    Raises:
        UserError: It is not there.
    """
    if found := shutil.which("ncu"):
        return found
    for pattern in _USUAL_PLACES:
        if places := sorted(root.glob(pattern)):
            return str(places[-1])
    raise UserError(
        "ncu: NVIDIA's profiler is not installed here (package nsight-compute, or the CUDA toolkit)"
    )


def count(program: Sequence[str], *, profiler: str, patience: float = 300.0) -> KernelCounters:
    """Counters of the kernels between the program's `cudaProfilerStart` and `cudaProfilerStop`.

    Each kernel runs several times, for the GPU has fewer counters than are asked for. The clocks
    are left as they are.

    Args:
        program: Command and arguments.
        profiler: As `find_profiler` gives it.
        patience: Seconds.

    Raises:
        UserError: The profiler does not run, may not read the counters, or saw no kernel.
    """
    command = [
        *(profiler, "--csv", "--page", "raw", "--print-units", "base"),
        *("--clock-control", "none", "--cache-control", "none"),
        *("--profile-from-start", "off", "--target-processes", "application-only"),
        *("--metrics", ",".join(METRICS), *program),
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=patience
        )
    except OSError as error:
        raise UserError(f"ncu: {profiler} does not run ({error.strerror})") from error
    except subprocess.TimeoutExpired as error:
        raise UserError(f"ncu: took longer than {patience:g} s") from error
    rows = list(_rows(done.stdout))
    if not rows:
        raise UserError(f"ncu: {_complaint(done)}")
    return summary(rows)


def summary(rows: Iterable[dict[str, str]]) -> KernelCounters:
    """All kernels together; each row holds one kernel's values, as `ncu` prints them.

    Raises:
        UserError: A value lacks for every kernel.
    """
    kernels = [{name: _number(row.get(name, "")) for name in METRICS} for row in rows]
    moved = [
        (kernel[sectors], kernel[share])
        for kernel in kernels
        for sectors, share in zip(_SECTORS, _ASKED, strict=True)
    ]
    duration = _total(kernels, _DURATION)
    threads = _total(kernels, _THREAD_INSTRUCTIONS) / _total(kernels, _WARP_INSTRUCTIONS)
    active = _mean([(kernel[_DURATION], kernel[_ACTIVE]) for kernel in kernels])
    if active is None:
        raise UserError(f"ncu: gives no {_ACTIVE} on this GPU")
    return KernelCounters(
        kernels=len(kernels),
        gpu_microseconds=duration / 1000,
        sm_active=active,
        memory_efficiency=_mean(moved),
        warp_execution_efficiency=100 * threads / WARP,
    )


def _rows(output: str) -> Iterator[dict[str, str]]:
    """Kernels of the profiler's table; around it stand what it and the program say."""
    lines = output.splitlines()
    heads = [number for number, line in enumerate(lines) if line.startswith('"ID",')]
    if not heads:
        return
    table = [line for line in lines[heads[0] :] if line.startswith('"')]
    for row in csv.DictReader(table):
        if row["ID"]:  # the row below the head holds units
            yield row


def _complaint(done: subprocess.CompletedProcess[str]) -> str:
    said = f"{done.stdout}\n{done.stderr}".splitlines()
    if any("ERR_NVGPUCTRPERM" in line for line in said):
        return (
            "the driver lets only root read the counters (ERR_NVGPUCTRPERM); run as root, or load "
            "the driver's module with NVreg_RestrictProfilingToAdminUsers=0"
        )
    marks = ("==ERROR==", "==WARNING==")
    for mark in marks:
        for line in said:
            if line.startswith(mark):
                return line.removeprefix(mark).strip()
    lines = [line.strip() for line in said if line.strip() and not line.startswith("==PROF==")]
    if not lines:
        return f"gave no table (exit code {done.returncode})"
    return lines[-1].removeprefix("espnetv2.errors.UserError: ")


def _number(text: str) -> float | None:
    """A value such as "1,205.5"; None for "n/a", "nan" and nothing."""
    try:
        value = float(text.replace(",", ""))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _total(kernels: Sequence[dict[str, float | None]], name: str) -> float:
    total = sum(kernel[name] or 0.0 for kernel in kernels)
    if not total:
        raise UserError(f"ncu: gives no {name} on this GPU")
    return total


def _mean(pairs: Iterable[tuple[float | None, float | None]]) -> float | None:
    """Of weights and values; None without any weight."""
    known = [(weight, value) for weight, value in pairs if weight and value is not None]
    if not known:
        return None
    return sum(weight * value for weight, value in known) / sum(weight for weight, _ in known)
