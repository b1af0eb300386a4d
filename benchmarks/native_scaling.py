"""How the native engine's time grows with width, resolution, batch and threads.

    python benchmarks/native_scaling.py [--seconds 60]

Classifiers with random weights, 224 x 224, batch 1 and 2 threads unless a row says otherwise; all
rows take turns in one process. The floor of a row is its multiply-adds over the rate that its
threads reach with registers alone, measured between the turns. Writes
benchmarks/results/native_scaling.json; `tools/plot_native.py` draws it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import espnetv2_native
import torch
from native_engine import peak

from espnetv2.deploy.engine_native import NativeEngine
from espnetv2.deploy.fold import fold
from espnetv2.profiling.benchmark import machine, network_of
from espnetv2.profiling.complexity import measure_by_name

OUT = Path("benchmarks/results/native_scaling.json")
WIDTHS = ("0_5", "1_0", "1_25", "1_5", "1_75", "2_0")
SIDES = (64, 96, 128, 160, 192, 224, 256, 288, 320, 384, 448, 512)
BATCHES = (1, 2, 3, 4, 6, 8)
THREADS = (1, 2, 3, 4)


@dataclass(frozen=True)
class Row:
    """What is measured; `series` is what changes in its plot."""

    series: str
    model: str = "espnetv2_s1_0"
    precision: str = "fp32"
    side: int = 224
    batch: int = 1
    threads: int = 2


def rows() -> list[Row]:
    """All of them."""
    found = [
        Row("width", f"espnetv2_s{width}", precision)
        for width in WIDTHS
        for precision in ("fp32", "bf16")
    ]
    found += [Row("side", side=side) for side in SIDES]
    found += [Row("batch", batch=batch) for batch in BATCHES]
    return found + [Row("threads", threads=threads) for threads in THREADS]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    cases = []
    for row in rows():
        network = fold(network_of(row.model).network)
        engine = NativeEngine.of(network, precision=row.precision, threads=row.threads)
        image = torch.randn(row.batch, 3, row.side, row.side).numpy()
        engine.run(image)
        cases.append((row, engine, image))
    times: dict[Row, list[float]] = {row: [] for row, _, _ in cases}
    peaks: dict[int, float] = dict.fromkeys(THREADS, 0.0)
    end = time.monotonic() + options.seconds
    while time.monotonic() < end:
        for row, engine, image in cases:
            engine.run(image)  # brings its weights back into the caches
            for _ in range(2):
                start = time.perf_counter()
                engine.run(image)
                times[row].append(1000 * (time.perf_counter() - start))
        for threads in THREADS:
            peaks[threads] = max(peaks[threads], peak(threads))
    measured = []
    for row, own in times.items():
        counted = measure_by_name(row.model, size=(row.side, row.side))
        macs = row.batch * (counted.macs + counted.linear_macs)
        figures = {
            "macs": macs,
            "ms_min": round(min(own), 4),
            "ms_median": round(statistics.median(own), 4),
            "floor_ms": round(1000 * macs / peaks[row.threads], 4),
        }
        measured.append({**asdict(row), **figures})
    result = {
        "instruction_set": espnetv2_native.instruction_set(),
        "peak_macs_per_second": peaks,
        "rows": measured,
        **machine(),
        "date": date.today().isoformat(),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
