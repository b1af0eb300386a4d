"""The parts of `benchmarks/gpu.py`: each times one thing and gives plain values."""

from __future__ import annotations

import gc
import traceback
from dataclasses import asdict, dataclass, replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from gpu_clock import Call, Deadline, elapsed, held, interleave, peak, wait
from gpu_sides import Side, opened

from espnetv2.errors import UserError
from espnetv2.models.catalog import entry
from espnetv2.profiling.benchmark import network_of
from espnetv2.profiling.case import Case
from espnetv2.profiling.complexity import measure as count
from espnetv2.profiling.counters import Counter
from espnetv2.profiling.energy import measure, survey
from espnetv2.profiling.row_counters import counted

COMPILING = 30.0
"""Seconds that a compiled side may take to open; with less left it is not begun."""

WORDS = 929_589
"""Of the Penn Treebank's training part."""


@dataclass(frozen=True)
class Plan:
    """What is asked for.

    Attributes:
        device: Where.
        small: Sizes for a rehearsal on a CPU.
        seconds: Of timing, for each comparison.
        unchecked: Why the fused kernels are not timed; empty where they passed the check.
    """

    device: torch.device
    small: bool
    seconds: float
    unchecked: str = ""

    def side(self, side: Side) -> Side:
        """The same in the size of a rehearsal, if it is one."""
        if not self.small:
            return side
        size = tuple(min(one, 32) for one in side.size)
        model = side.model.replace("s2_0", "s0_5").replace("s1_0", "s0_5")
        return replace(side, model=model, batch=min(side.batch, 2), size=size)

    def interleaved(self, calls: dict[str, Call], *, share: float = 1.0) -> dict[str, Any]:
        """Warm calls that take turns, for a share of a comparison's time."""
        rounds = 2 if self.small else 5
        return interleave(calls, device=self.device, seconds=share * self.seconds, rounds=rounds)


def compare(sides: list[Side], plan: Plan, deadline: Deadline) -> dict[str, Any]:
    """Milliseconds, images a second and memory of sides that take turns; and what lacks, why."""
    calls: dict[str, Call] = {}
    found: dict[str, Any] = {}
    for side in map(plan.side, sides):
        if deadline.left() < (COMPILING if side.compiled and not plan.small else 1.0):
            found[side.name] = "not measured (no time left)"
            continue
        before = held(plan.device)
        try:
            call = ready(side, plan)
        except Exception as error:  # whatever one side lacks, the others are timed
            found[side.name] = f"not measured ({first_line(error)})"
            continue
        calls[side.name] = call
        found[side.name] = asdict(side) | {"peak_bytes": peak(call, before, plan.device)}
        found[side.name]["macs"] = macs_of(side)
    times = plan.interleaved(calls) if calls else {}
    for name, values in times.items():
        batch = found[name]["batch"]
        found[name] |= values | {"images_per_second": 1000 * batch / values["ms"]}
    return found


def ready(side: Side, plan: Plan) -> Call:
    """The call to be timed, warm.

    Raises:
        UserError: Its kernels have not passed the check, or do not run here.
    """
    if side.kernels == "fused" and plan.unchecked:
        raise UserError(plan.unchecked)
    return opened(side, plan.device, calls=1 if plan.small else 3)


def macs_of(side: Side) -> int:
    """Multiply-adds of one picture."""
    return _macs(side.model, side.size)


@cache
def _macs(model: str, size: tuple[int, int]) -> int:
    return count(network_of(model).network, size).macs


def copy_bandwidth(plan: Plan) -> dict[str, Any]:
    """Bytes a second that a large copy moves, each byte counted when read and when written."""
    values = 2**14 if plan.small else 2**30
    source = torch.randn(values, device=plan.device)
    target = torch.empty_like(source)
    found = plan.interleaved({"copy": lambda: target.copy_(source)})["copy"]
    return found | {"bytes_per_second": 2 * source.nbytes / (found["ms"] / 1000)}


def language(plan: Plan) -> dict[str, Any]:
    """A training step of the ERU language model, 20 texts of 70 words, and so an epoch of PTB."""
    words, texts = (4, 2) if plan.small else (70, 20)
    network = entry("eru_lm_7m").build().to(plan.device).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    tokens = torch.randint(100, (words, texts), device=plan.device)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(plan.device.type, torch.bfloat16):
            logits, _ = network(tokens)
            loss = F.cross_entropy(logits.flatten(0, 1), tokens.flatten())
        loss.backward()
        optimizer.step()

    for _ in range(3):
        step()
    found = plan.interleaved({"step": step})["step"]
    return found | {"seconds_per_epoch": WORDS / (words * texts) * found["ms"] / 1000}


def energy(sides: list[Side], plan: Plan, deadline: Deadline) -> dict[str, Any]:
    """Millijoules of a picture by the GPU's own counter, idle subtracted."""
    surveyed = survey()
    counters = [one for one in surveyed.counters if one.covers == "gpu"]
    if not counters:
        return {side.name: f"not available ({'; '.join(surveyed.reasons)})" for side in sides}
    return {side.name: _spent(plan.side(side), counters[0], plan, deadline) for side in sides}


def _spent(side: Side, counter: Counter, plan: Plan, deadline: Deadline) -> Any:
    if deadline.left() < 12:
        return "not measured (no time left)"
    try:
        call = ready(side, plan)
        wait(plan.device)
        calls = max(1, int(0.02 / elapsed(call, 1, plan.device)))

        def run() -> None:
            elapsed(call, calls, plan.device)

        spent = measure(
            run, counter=counter, images=calls * side.batch, seconds=2.0, idle_seconds=1.5
        )
    except UserError as error:
        return f"not measured ({error})"
    return {"macs": macs_of(side), **spent.to_json()}


def edge_metrics(sides: list[Side], plan: Plan, deadline: Deadline) -> dict[str, Any]:
    """Load, clocks and the kernels' efficiency, as `espnetv2 benchmark --counters` finds them."""
    return {side.name: _metrics(plan.side(side), plan, deadline) for side in sides}


def _metrics(side: Side, plan: Plan, deadline: Deadline) -> Any:
    if deadline.left() < 20:
        return "not measured (no time left)"
    try:
        call = ready(side, plan)
    except UserError as error:
        return f"not measured ({error})"
    wait(plan.device)
    ms = 1000 * elapsed(call, 1, plan.device)
    worker: Any = SimpleNamespace(run=lambda calls: elapsed(call, calls, plan.device))
    row = {"ms_median": ms, "batch": side.batch}
    case = Case(
        *(side.model, "cudagraph", "deploy", "bf16", side.size, side.batch),
        device=str(plan.device),
    )
    patience = max(10.0, deadline.left())
    found = {"ms": ms, "engine": case.engine} | counted(worker, case, row, patience=patience)
    if isinstance(found["gpu_kernels"], str) and deadline.left() > 20:  # profilers may mind graphs
        case = replace(case, engine="torch")
        again = counted(worker, case, row, patience=max(10.0, deadline.left()))
        found |= {"engine": case.engine, "gpu_kernels": again["gpu_kernels"]}
    return found


def forget() -> None:
    """Give back what a part took, so that the next one finds an empty GPU."""
    gc.collect()
    torch.compiler.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def first_line(error: Exception) -> str:
    """Of an error, for the table; all of it goes to standard error."""
    traceback.print_exception(error)
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]
