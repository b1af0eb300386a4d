"""What our ONNX export gains over a plain `torch.onnx.export` of the train form, in ONNX Runtime.

    python benchmarks/onnx_deploy_form.py [--threads 2] [--rounds 300]

Same weights (random, with distinct norms and slopes), same runtime, one process, all sides in
turns. Before the clock starts, both files must give the train form's logits. A side's figure is
its fastest call, since a busy machine only ever adds time; medians stand beside it. MobileNetV2
and ShuffleNetV2 x1.5 of torchvision, plainly exported, cost about as many multiply-adds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import nn

from espnetv2.deploy.conversion import Job
from espnetv2.deploy.fold import fold
from espnetv2.deploy.quiet import quiet
from espnetv2.deploy.targets import TARGETS
from espnetv2.deploy.to_onnx import OPSET, convert
from espnetv2.profiling.benchmark import machine, network_of

MODEL = "espnetv2_s2_0"
RIVALS = ("mobilenet_v2_x1_0", "shufflenet_v2_x1_5")
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "thread": time.thread_time}


def plain(network: nn.Module, image: torch.Tensor, folder: Path) -> Path:
    """What everybody does."""
    file = folder / "plain.onnx"
    with quiet("torch.onnx", "onnxscript", "onnx_ir", "root"):
        torch.onnx.export(
            network,
            (image,),
            file,
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    return file


def ours(network: nn.Module, image: torch.Tensor, folder: Path) -> Path:
    """What `espnetv2 export --to onnx` does."""
    job = Job(fold(network, **TARGETS["onnx"].fold), (image,), ("image",), ("logits",))
    return folder / convert(job, folder).files[0]


def session_of(file: Path, *, threads: int, spin: bool) -> onnxruntime.InferenceSession:
    """ONNX Runtime with all of its graph optimisations."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def build(name: str, *, export: Any, image: torch.Tensor, options: argparse.Namespace) -> Any:
    """A call to be timed, checked against the network."""
    network = network_of(name).network
    with tempfile.TemporaryDirectory() as place:
        session = session_of(
            export(network, image, Path(place)),
            threads=options.threads,
            spin=not options.no_spinning,
        )
    given = {session.get_inputs()[0].name: image.numpy()}
    with torch.inference_mode():
        truth = network(image).numpy()
    apart = np.abs(session.run(None, given)[0] - truth).max() / np.abs(truth).max()
    if apart > 1e-4:
        raise SystemExit(f"{name}: the exported file differs by {apart:.1e}")
    return lambda: session.run(None, given)


def measure(sides: dict[str, Any], *, rounds: int, clock: str) -> dict[str, dict[str, float]]:
    """Milliseconds of every side; the order turns around every other round."""
    now = CLOCKS[clock]
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides) if number % 2 == 0 else list(sides)[::-1]:
            start = now()
            sides[name]()
            times[name].append(1000 * (now() - start))
    return {
        name: {"ms_min": round(min(own), 3), "ms_median": round(statistics.median(own), 3)}
        for name, own in times.items()
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--no-spinning", action="store_true", help="threads sleep while they wait")
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="thread: its own time, where others run"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks/results/onnx_deploy_form.json")
    )
    options = parser.parse_args()
    if options.clock == "thread" and options.threads > 1:
        raise SystemExit("--clock thread counts one thread only; give --threads 1")
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    image = torch.randn(1, 3, options.size, options.size)
    sides = {
        "plain": build(MODEL, export=plain, image=image, options=options),
        "ours": build(MODEL, export=ours, image=image, options=options),
    }
    for name in RIVALS:
        sides[name] = build(name, export=plain, image=image, options=options)
    measure(sides, rounds=10, clock=options.clock)  # warm-up
    rows = measure(sides, rounds=options.rounds, clock=options.clock)
    ratios = {key: rows["plain"][key] / rows["ours"][key] for key in ("ms_min", "ms_median")}
    result = {
        "model": MODEL,
        "size": options.size,
        "batch": 1,
        "threads": options.threads,
        "clock": options.clock,
        "rounds": options.rounds,
        "times_faster": round(ratios["ms_min"], 3),
        "times_faster_by_medians": round(ratios["ms_median"], 3),
        "rows": rows,
        **machine(),
        "date": date.today().isoformat(),
        "commit": subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip(),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
