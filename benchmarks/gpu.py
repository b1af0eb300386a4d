"""The fused kernels, CUDA graphs and training on a GPU: checked, then timed, in one call.

    python benchmarks/gpu.py [--out benchmarks/results/gpu.json] [--quick]
    python benchmarks/gpu.py --device cpu --quick --out FILE   # a rehearsal

First the fused kernels are compared with float64 on the device itself; if they differ, nothing is
timed. Then everything that is compared takes turns in this process: medians, beside the bandwidth
of a large copy in the same run. Every part has a time budget, and what does not fit is reported as
not measured. Compiled networks are compiled at the beginning, in processes side by side, into
torch's cache on disk. Clocks are read and never set.

It needs torch 2.11 or later, torchvision and this package's folder `src`, installed or not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "benchmarks")]
os.environ["PYTHONPATH"] = os.pathsep.join(  # for the processes that are started
    [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
)

import gpu_check as check  # noqa: E402
import gpu_operators as operators  # noqa: E402
import gpu_parts as parts  # noqa: E402
import torch  # noqa: E402
from gpu_ahead import CHECKS, names_ahead, side_by_side, sides_ahead  # noqa: E402
from gpu_clock import Deadline  # noqa: E402
from gpu_plan import COMPARISONS, ESPNET, GOALS, GRAPHS, judged, operator_lines  # noqa: E402
from gpu_sides import need_fused, opened  # noqa: E402

from espnetv2.errors import UserError  # noqa: E402
from espnetv2.kernels.depthwise_pyramid import walk  # noqa: E402
from espnetv2.profiling.benchmark import machine  # noqa: E402

TOTAL = 450.0
"""Seconds of one call, about; eight minutes are the most that it may take."""

WARMING = 150.0
"""Seconds that compiling ahead may take."""

CHECKING = 60.0
"""Seconds that the cases of the operators may take; the rest of them is left out, and counted."""

NETWORK, SMALL_NETWORK = ("espnetv2_s1_0", 160), ("espnetv2_s0_5", 32)

Part = Callable[[Deadline], Any]


def all_parts(plan: parts.Plan) -> dict[str, tuple[float, Part]]:
    """Everything that is timed, the most wanted first, each with its budget in seconds."""
    metrics = [*GRAPHS[:3], ESPNET, *GRAPHS[3:]]
    classifier = "espnetv2_s2_0", 256, (224, 224)

    def compare(name: str) -> tuple[float, Part]:
        return 110, lambda deadline: parts.compare(COMPARISONS[name], plan, deadline)

    return {
        "copy": (5, lambda deadline: parts.copy_bandwidth(plan)),
        "pyramid": (30, lambda deadline: operators.pyramid(*classifier, plan)),
        "norms": (30, lambda deadline: operators.norms(*classifier, plan)),
        "pointwise": (30, lambda deadline: operators.pointwise(*classifier, plan)),
        "train s = 2.0": compare("train s = 2.0"),
        "pass, batch 1": compare("pass, batch 1"),
        "language": (20, lambda deadline: parts.language(plan)),
        "energy": (75, lambda deadline: parts.energy(GRAPHS, plan, deadline)),
        "train s = 1.0": compare("train s = 1.0"),
        "street, batch 1": compare("street, batch 1"),
        "pass, batch 256": compare("pass, batch 256"),
        "street, training": compare("street, training"),
        "counters": (100, lambda deadline: parts.edge_metrics(metrics, plan, deadline)),
    }


def checked(plan: parts.Plan, deadline: Deadline) -> dict[str, Any]:
    """The fused operators and a fused network against float64.

    Raises:
        UserError: The fused kernels do not run on this device.
    """
    need_fused(plan.device)
    half = Deadline(deadline.left() / 2)
    found = {
        "operator": check.check_operator(plan.device, half, few=plan.small),
        "pointwise": check.check_pointwise(plan.device, deadline, few=plan.small),
        "norms": check.check_norms(plan.device, deadline, few=plan.small),
    }
    if walk.ready(plan.device) and math.inf > walk.FEWEST:
        found["walk"] = check.check_walk(plan.device, deadline, few=plan.small)
    if not all(one["cases"] for one in found.values()):
        raise UserError("no time left to check a single case")
    network = SMALL_NETWORK if plan.small else NETWORK
    found["network"] = check.check_network(*network, plan.device)
    return found | {"failures": [text for one in found.values() for text in one.pop("failures")]}


def run(plan: parts.Plan, total: float, *, ahead: bool, only: list[str]) -> dict[str, Any]:
    """Check and time; gives the document."""
    start, deadline = time.monotonic(), Deadline(total)
    document: dict[str, Any] = {
        "date": date.today().isoformat(),
        "commit": _commit(),
        "machine": machine(),
        "cudnn": torch.backends.cudnn.version(),
        "small": plan.small,
        "parts": {},
    }
    found = document["parts"]
    if walk.ready(plan.device) and (why := _walk_fails(plan.device)):
        document["walk"], walk.FEWEST = why, math.inf
    if ahead:
        document["compiled_ahead"] = _compiled_ahead(only, Deadline(min(WARMING, total)))
    with _told(found, "check"):
        found["check"] = checked(plan, Deadline(min(CHECKING, deadline.left())))
    wrong = found["check"]["failures"] if isinstance(found["check"], dict) else []
    if isinstance(found["check"], str):
        why = found["check"].removeprefix("not measured (").removesuffix(")")
        plan = replace(plan, unchecked=f"the fused kernels were not checked: {why}")
    longer = max(1.0, total / TOTAL)  # who gives more time gives it to every part
    for name, (budget, part) in all_parts(plan).items():
        if wrong:
            found[name] = "not measured (the fused kernels differ from float64)"
        elif only and name not in only:
            found[name] = "not measured (not asked for)"
        elif deadline.left() < 5:
            found[name] = "not measured (no time left)"
        else:
            with _told(found, name):
                found[name] = part(Deadline(min(budget * longer, deadline.left())))
    document["seconds"] = round(time.monotonic() - start, 1)
    lines = [*operator_lines(found), *(judged(goal, found) for goal in GOALS)]
    if plan.small:
        lines = [(*line[:-1], "rehearsal" if line[3] else line[5]) for line in lines]
    document["table"] = lines
    return document


@contextlib.contextmanager
def _told(found: dict[str, Any], name: str) -> Any:
    """One part that fails leaves the others their time; its reason takes the place of figures."""
    start = time.monotonic()
    try:
        yield
    except Exception as error:
        found[name] = f"not measured ({parts.first_line(error)})"
    finally:
        sys.stderr.write(f"{name}: {time.monotonic() - start:.1f} s\n")
        parts.forget()


def _walk_fails(device: torch.device) -> str:
    """Why the kernels for warps must not run; found in a process that may die of it, or hang."""
    words = ["--device", str(device), "--warm", "walk"]
    command = [sys.executable, str(Path(__file__)), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=WARMING)
    except subprocess.TimeoutExpired:
        return f"not done after {WARMING:.0f} s"
    said = done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"]
    return said[-1][:200] if done.returncode else ""


def _compiled_ahead(only: list[str], deadline: Deadline) -> dict[str, str]:
    commands = {
        name: [sys.executable, str(Path(__file__)), "--warm", name] for name in names_ahead(only)
    }
    if math.inf == walk.FEWEST:
        commands = {name: [*command, "--strips"] for name, command in commands.items()}
    start = time.monotonic()
    found = side_by_side(commands, jobs=os.cpu_count() or 1, deadline=deadline)
    sys.stderr.write(f"compiled ahead: {time.monotonic() - start:.1f} s\n")
    return found


def warm(name: str, device: torch.device) -> None:
    """What one process compiles ahead."""
    kind, _, number = name.partition("/")
    if kind == "check":
        for part in (check.check_operator, check.check_pointwise, check.check_norms):
            part(device, Deadline(WARMING), share=(int(number), CHECKS))
    elif kind == "walk":
        if failures := check.check_walk(device, Deadline(WARMING))["failures"]:
            sys.exit("; ".join(failures))
    elif kind == "network":
        check.check_network(*NETWORK, device)
    else:
        opened(sides_ahead()[name], device)


def table(document: dict[str, Any]) -> str:
    """Short, and last."""
    found = document["parts"]
    lines = [("what", "ours", "beside", "ratio", "goal", ""), *document["table"]]
    widths = [max(len(line[i]) for line in lines) for i in range(6)]
    rows = [
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) for line in lines
    ]
    for name, part in found.items():
        if isinstance(part, str):
            rows.append(f"{name}: {part}")
    if "walk" in document:
        rows.append(f"kernels for warps: off ({document['walk']})")
    check_part = found["check"]
    if isinstance(check_part, dict):
        rows.append("check: " + ("; ".join(check_part["failures"][:3]) or "held"))
    if isinstance(found.get("language"), dict):
        rows.append(f"an epoch of PTB: {found['language']['seconds_per_epoch']:.1f} s")
    spent = found["energy"] if isinstance(found.get("energy"), dict) else {}
    for name, one in spent.items():
        if isinstance(one, dict):
            rows.append(f"energy of an image, {name}: {one['millijoules_per_image']:.3g} mJ")
    rows += [
        f"energy: {why}" for why in dict.fromkeys(o for o in spent.values() if isinstance(o, str))
    ]
    for name, one in (found["counters"] if isinstance(found.get("counters"), dict) else {}).items():
        rows.append(f"counters, {name}: {_short(one)}")
    if document["small"]:
        rows.append("a rehearsal on a CPU with small networks: these figures mean nothing")
    rows.append(f"{document['seconds']} s in all")
    return "\n".join(row.rstrip() for row in rows)


def _short(metrics: Any) -> str:
    """Load, clock and efficiency on one line."""
    if isinstance(metrics, str):
        return metrics
    shown = []
    for part in (metrics["gpu_load"], metrics["gpu_kernels"]):
        if isinstance(part, str):
            shown.append(part[:100])
        else:
            names = ("utilisation", "sm_mhz", "sm_active", "memory_eff", "warp_exec")
            shown += [f"{key} {value:.4g}" for key, value in part.items() if key.startswith(names)]
    return ", ".join(shown)


def main(words: list[str] | None = None) -> int:
    """Measure, write, print; gives the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="short timings, nothing ahead")
    parser.add_argument("--seconds", type=float, default=TOTAL, help="of the whole call")
    parser.add_argument("--only", action="append", default=[], help="a part; may be repeated")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/gpu.json")
    parser.add_argument("--warm", help=argparse.SUPPRESS)
    parser.add_argument("--strips", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    _settings()
    try:
        device = torch.device(options.device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        told = str(error).splitlines()[0]
        parser.exit(2, f"error: {options.device}: {told}; give --device cpu\n")
    if options.strips:
        walk.FEWEST = math.inf
    if options.warm:
        warm(options.warm, device)
        return 0
    small = device.type != "cuda"
    plan = parts.Plan(device, small, 0.2 if small else 1.0 if options.quick else 3.0)
    document = run(plan, options.seconds, ahead=not (small or options.quick), only=options.only)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(f"written: {options.out}")
    print(table(document))
    check_part = document["parts"]["check"]
    return 1 if isinstance(check_part, dict) and check_part["failures"] else 0


def _settings() -> None:
    torch.backends.cudnn.benchmark = True  # on every side
    with contextlib.suppress(ImportError, AttributeError):
        from torch._inductor import config

        config.autotune_local_cache = False  # choices made while others compile are poor ones


def _commit() -> str:
    with contextlib.suppress(OSError):
        asked = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
        return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    return ""


if __name__ == "__main__":
    sys.exit(main())
