"""What our export gains over a plain `torch.onnx.export` of the train form.

    python benchmarks/deploy_form.py [--threads 2] [--rounds 300] [--runtimes onnxruntime,openvino]

Same weights (random, with distinct norms and slopes), same runtime with the same options, one
process, all sides in turns. Before the clock starts, every file must give the train form's
logits. A side's figure is its fastest call, since a busy machine only ever adds time; medians
stand beside it. MobileNetV2 and ShuffleNetV2 x1.5 of torchvision, plainly exported, cost about as
many multiply-adds. OpenVINO computes in float32 on every side.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from espnetv2.deploy.artefact import Artefact, Port
from espnetv2.deploy.conversion import Job
from espnetv2.deploy.fold import fold
from espnetv2.deploy.quiet import quiet
from espnetv2.deploy.targets import ENGINES, TARGETS, converter, engine_kind
from espnetv2.deploy.to_onnx import OPSET
from espnetv2.profiling.benchmark import machine, network_of
from espnetv2.profiling.latency import orders

MODEL = "espnetv2_s2_0"
RIVALS = ("mobilenet_v2_x1_0", "shufflenet_v2_x1_5")
RUNTIMES = ("onnxruntime", "openvino")
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "thread": time.thread_time}
SETTLED = 0.01  # seconds; other engines' threads wait awake for a while
Export = Callable[[str, nn.Module, torch.Tensor, Path], tuple[str, ...]]


@dataclass(frozen=True)
class Side:
    """A file in a runtime, ready to be called."""

    call: Callable[[], Any]
    bytes: int
    precision: str


def plain(runtime: str, network: nn.Module, image: torch.Tensor, folder: Path) -> tuple[str, ...]:
    """What everybody does; both runtimes read it."""
    with quiet("torch.onnx", "onnxscript", "onnx_ir", "root"):
        torch.onnx.export(
            network,
            (image,),
            folder / "plain.onnx",
            dynamo=True,
            opset_version=OPSET,
            input_names=["image"],
            output_names=["logits"],
            external_data=False,
            verbose=False,
        )
    return ("plain.onnx",)


def ours(runtime: str, network: nn.Module, image: torch.Tensor, folder: Path) -> tuple[str, ...]:
    """What `espnetv2 export --to ...` does."""
    target = str(ENGINES[runtime].target)
    form = fold(network, **TARGETS[target].fold)
    files: tuple[str, ...] = (
        converter(target).convert(Job(form, (image,), ("image",), ("logits",)), folder).files
    )
    return files


def build(runtime: str, name: str, export: Export, image: torch.Tensor, threads: int) -> Side:
    """A side, checked against the network."""
    network = network_of(name).network
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        files = export(runtime, network, image, folder)
        artefact = Artefact(
            target=str(ENGINES[runtime].target),
            folder=folder,
            files=files,
            model=name,
            task="classification",
            classes=(),
            palette=None,
            preprocessing={},
            options={},
            precision="fp32",
            takes="input",
            gives="raw",
            inputs=(Port("image", tuple(image.shape)),),
            outputs=(Port("logits", ()),),
            dynamic=False,
        )
        engine = engine_kind(runtime)(artefact, threads=threads)
        size = sum((folder / file).stat().st_size for file in files)
    given = image.numpy()
    with torch.inference_mode():
        truth = network(image).numpy()
    apart = np.abs(engine.run(given)[0] - truth).max() / np.abs(truth).max()
    if apart > 1e-4:
        raise SystemExit(f"{name} in {runtime}: the exported file differs by {apart:.1e}")
    return Side(lambda: engine.run(given), size, engine.precision)


def measure(sides: dict[str, Side], *, rounds: int, clock: str) -> dict[str, dict[str, float]]:
    """Milliseconds of every side, in the order of `espnetv2.profiling.latency.orders`."""
    now = CLOCKS[clock]
    times: dict[str, list[float]] = {name: [] for name in sides}
    for order in islice(orders(list(sides)), rounds):
        for name in order:
            call = sides[name].call
            time.sleep(SETTLED)
            for _ in range(2):  # wakes its threads, brings its weights back into the caches
                call()
            start = now()
            call()
            times[name].append(1000 * (now() - start))
    return {
        name: {"ms_min": round(min(own), 3), "ms_median": round(statistics.median(own), 3)}
        for name, own in times.items()
    }


def compared(runtime: str, image: torch.Tensor, options: argparse.Namespace) -> dict[str, Any]:
    """All sides of one runtime."""
    sides = {
        "plain": build(runtime, MODEL, plain, image, options.threads),
        "ours": build(runtime, MODEL, ours, image, options.threads),
    }
    for name in RIVALS:
        sides[name] = build(runtime, name, plain, image, options.threads)
    measure(sides, rounds=10, clock=options.clock)  # warm-up
    rows: dict[str, dict[str, Any]] = dict(
        measure(sides, rounds=options.rounds, clock=options.clock)
    )
    for name, side in sides.items():
        rows[name] |= {"bytes": side.bytes, "precision": side.precision}
    ratios = {key: rows["plain"][key] / rows["ours"][key] for key in ("ms_min", "ms_median")}
    return {
        "times_faster": round(ratios["ms_min"], 3),
        "times_faster_by_medians": round(ratios["ms_median"], 3),
        "rows": rows,
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--runtimes", default=",".join(RUNTIMES))
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="thread: its own time, where others run"
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/deploy_form.json"))
    options = parser.parse_args()
    if options.clock == "thread" and options.threads > 1:
        raise SystemExit("--clock thread counts one thread only; give --threads 1")
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    image = torch.randn(1, 3, options.size, options.size)
    result = {
        "model": MODEL,
        "size": options.size,
        "batch": 1,
        "threads": options.threads,
        "clock": options.clock,
        "rounds": options.rounds,
        "runtimes": {name: compared(name, image, options) for name in options.runtimes.split(",")},
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
