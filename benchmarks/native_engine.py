"""The native engine beside the best of the others, and beside what its arithmetic must take.

    python benchmarks/native_engine.py [--threads 2] [--rounds 200]

ESPNetv2 s = 2.0 at 224 x 224, float32, random weights with distinct norms and slopes, batch 1; one
process, all sides in turns, every side checked against its network before the clock starts. The
floor is the network's multiply-adds (convolutions and the linear map) over the rate that all
threads together reach with registers alone, measured between the rounds of the same run.
MobileNetV2 and ShuffleNetV2 x1.5 of torchvision cost about as many multiply-adds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import espnetv2_native
import numpy as np
import torch
from deploy_form import MODEL, RIVALS, Side, build, measure, ours, plain

from espnetv2.deploy.engine_native import NativeEngine
from espnetv2.deploy.engine_torch import TorchEngine
from espnetv2.deploy.engines import open_artefact
from espnetv2.deploy.export import export
from espnetv2.deploy.fold import fold
from espnetv2.deploy.subject import Settings
from espnetv2.profiling.benchmark import machine, network_of
from espnetv2.profiling.complexity import measure_by_name

OTHER_WIDTHS = ("espnetv2_s1_0", "espnetv2_s0_5")
STOCK = ("onnxruntime", "openvino")
PEAK_SECONDS = 0.01


def checked(name: str, engine: Any, image: torch.Tensor) -> Side:
    """A network in one of our own engines."""
    network, given = network_of(name).network, image.numpy()
    with torch.inference_mode():
        truth = network(image).numpy()
    apart = np.abs(engine.run(given)[0] - truth).max() / np.abs(truth).max()
    if apart > 1e-5:
        raise SystemExit(f"{name} in {engine.name}: differs by {apart:.1e}")
    return Side(lambda: engine.run(given), 0, engine.precision)


def exported(name: str, target: str, image: torch.Tensor, threads: int) -> Side:
    """What `espnetv2 export` makes, which compares it with the network."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "out"
        export(network_of(name), target, folder, Settings(size=tuple(image.shape[2:])))
        engine = open_artefact(folder, threads=threads)
        given = image.numpy()
        engine.run(given)
    return Side(lambda: engine.run(given), 0, engine.precision)


def sides_of(image: torch.Tensor, threads: int) -> dict[str, Side]:
    """Every side by its name: network, engine, form."""
    sides = {}
    for name in (MODEL, *OTHER_WIDTHS):
        engine = NativeEngine.of(fold(network_of(name).network), threads=threads)
        sides[f"{name} native"] = checked(name, engine, image)
    eager = TorchEngine(network_of(MODEL).network, threads=threads)
    sides[f"{MODEL} torch plain"] = checked(MODEL, eager, image)
    for runtime in STOCK:
        sides[f"{MODEL} {runtime} deploy"] = build(runtime, MODEL, ours, image, threads)
        sides[f"{MODEL} {runtime} plain"] = build(runtime, MODEL, plain, image, threads)
        for rival in RIVALS:
            sides[f"{rival} {runtime} plain"] = build(runtime, rival, plain, image, threads)
    for name in (MODEL, *RIVALS):
        sides[f"{name} ncnn deploy"] = exported(name, "ncnn", image, threads)
    return sides


def peak(threads: int) -> float:
    """Multiply-adds a second of all threads at once, registers only."""
    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(espnetv2_native.peak, [PEAK_SECONDS] * threads))


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/native_engine.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    image = torch.randn(1, 3, options.size, options.size)
    sides = sides_of(image, options.threads)
    measure(sides, rounds=5, clock="wall")  # warm-up
    blocks, peaks = [], []
    for _ in range(max(1, options.rounds // 20)):
        blocks.append(measure(sides, rounds=20, clock="wall"))
        time.sleep(0.01)  # the other engines' threads stop waiting awake
        peaks.append(peak(options.threads))
    rows = {
        name: {
            "ms_min": min(block[name]["ms_min"] for block in blocks),
            "ms_median": statistics.median(block[name]["ms_median"] for block in blocks),
            "precision": side.precision,
        }
        for name, side in sides.items()
    }
    own = rows[f"{MODEL} native"]
    counted = measure_by_name(MODEL, size=(options.size, options.size))
    macs = counted.macs + counted.linear_macs
    floor = 1000 * macs / max(peaks)
    ratios = {
        name: {key: round(row[key] / own[key], 3) for key in ("ms_min", "ms_median")}
        for name, row in rows.items()
    }
    result = {
        "model": MODEL,
        "size": options.size,
        "batch": 1,
        "threads": options.threads,
        "rounds": 20 * len(blocks),
        "instruction_set": espnetv2_native.instruction_set(),
        "macs": macs,
        "peak_macs_per_second": max(peaks),
        "floor_ms": round(floor, 3),
        "over_floor": round(own["ms_min"] / floor, 3),
        "rows": rows,
        "times_of_native": ratios,
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
