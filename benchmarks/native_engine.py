"""The native engine beside the best of the others, and beside what its arithmetic must take.

    python benchmarks/native_engine.py classifier|segmentation|detection [--rounds 200]

Random weights with distinct norms and slopes, batch 1; one process, all sides in turns, every side
checked against its network before the clock starts.

classifier: ESPNetv2 at 224 x 224. The floor is the network's multiply-adds (convolutions and the
linear map) over the rate that all threads together reach with registers alone in float32, measured
between the rounds of the same run. MobileNetV2 and ShuffleNetV2 x1.5 of torchvision cost about as
many multiply-adds as s = 2.0.

segmentation: from a 1024 x 512 picture to the class of each of its pixels. detection: SSD300 to
boxes, suppression included.
"""

from __future__ import annotations

import argparse
import json
import os
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
from deploy_form import MODEL, RIVALS, SETTLED, Side, build, measure, plain

from espnetv2.deploy.engine_native import NativeEngine
from espnetv2.deploy.engine_torch import TorchEngine
from espnetv2.deploy.engines import open_artefact
from espnetv2.deploy.export import export
from espnetv2.deploy.fold import fold
from espnetv2.deploy.outputs import with_decoding
from espnetv2.deploy.subject import Settings
from espnetv2.profiling.benchmark import machine, network_of
from espnetv2.profiling.complexity import measure_by_name

SIZES = {"classifier": (224, 224), "segmentation": (512, 1024), "detection": (300, 300)}
WIDTHS = {
    "classifier": (MODEL, "espnetv2_s1_0", "espnetv2_s0_5"),
    "segmentation": ("espnetv2_seg_s2_0", "espnetv2_seg_s1_0", "espnetv2_seg_s0_5"),
    "detection": ("espnetv2_ssd300_s2_0", "espnetv2_ssd300_s0_5"),
}
STOCK = ("onnx", "openvino")
BOUND = {"fp32": 1e-5, "bf16": 0.03, "int8": 0.1}
PEAK_SECONDS = 0.01


def native(name: str, image: torch.Tensor, threads: int, *, precision: str, isa: str = "") -> Side:
    """A network in our engine, decoded if its task has more to it than logits."""
    loaded, given = network_of(name), image.numpy()
    with torch.inference_mode():
        truth = loaded.network(image)
    seen = [given] if precision == "int8" else []  # ranges do not change the time
    options: dict[str, Any] = {"precision": precision, "threads": threads, "calibration": seen}
    raw = NativeEngine.of(fold(loaded.network), **options)
    expected = (truth if isinstance(truth, torch.Tensor) else truth[0]).numpy()
    apart = np.abs(raw.run(given)[0] - expected).max() / np.abs(expected).max()
    if loaded.task == "classification" and apart > BOUND[precision]:
        raise SystemExit(f"{name} in {precision}: differs by {apart:.1e}")
    form: torch.nn.Module = fold(loaded.network)
    if loaded.task != "classification":
        size = (image.shape[2], image.shape[3])
        form = with_decoding(form, task=loaded.task, size=size, detector=loaded.network)
    before = os.environ.get("ESPNETV2_NATIVE_ISA", "")
    os.environ["ESPNETV2_NATIVE_ISA"] = isa or before
    engine = NativeEngine.of(form, **options)
    os.environ["ESPNETV2_NATIVE_ISA"] = before
    engine.run(given)
    return Side(lambda: engine.run(given), 0, precision)


def exported(
    name: str, target: str, image: torch.Tensor, threads: int, *, precision: str = "fp32"
) -> Side:
    """What `espnetv2 export` makes, which compares it with the network."""
    loaded = network_of(name)
    settings = Settings(
        precision=precision,
        size=(image.shape[2], image.shape[3]),
        gives="raw" if loaded.task == "classification" else "decoded",
    )
    with tempfile.TemporaryDirectory() as place:
        export(loaded, target, Path(place) / "out", settings)
        engine = open_artefact(Path(place) / "out", threads=threads)
        given = image.numpy()
        engine.run(given)
    return Side(lambda: engine.run(given), 0, engine.precision)


def classifiers(image: torch.Tensor, threads: int) -> dict[str, Side]:
    """Every side by its name: network, engine, form."""
    sides = {}
    for name in WIDTHS["classifier"]:
        for precision in BOUND:
            side = native(name, image, threads, precision=precision)
            sides[f"{name} native {precision}"] = side
    sides[f"{MODEL} native fp32 avx2"] = native(MODEL, image, threads, precision="fp32", isa="avx2")
    eager, given = TorchEngine(network_of(MODEL).network, threads=threads), image.numpy()
    sides[f"{MODEL} torch plain"] = Side(lambda: eager.run(given), 0, "fp32")
    sides[f"{MODEL} openvino plain"] = build("openvino", MODEL, plain, image, threads)
    sides[f"{MODEL} onnxruntime plain"] = build("onnxruntime", MODEL, plain, image, threads)
    for name in (MODEL, *RIVALS):
        for target in (*STOCK, "ncnn"):
            sides[f"{name} {target} deploy"] = exported(name, target, image, threads)
        sides[f"{name} openvino bf16"] = exported(
            name, "openvino", image, threads, precision="bf16"
        )
    return sides


def others(what: str, image: torch.Tensor, threads: int) -> dict[str, Side]:
    """The same for whole tasks."""
    sides = {}
    for name in WIDTHS[what]:
        for precision in BOUND:
            side = native(name, image, threads, precision=precision)
            sides[f"{name} native {precision}"] = side
        for target in STOCK:
            sides[f"{name} {target}"] = exported(name, target, image, threads)
    return sides


def peak(threads: int) -> float:
    """Multiply-adds a second of all threads at once, registers only, in float32."""
    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(espnetv2_native.peak, [PEAK_SECONDS] * threads))


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=SIZES)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    out = options.out or Path(f"benchmarks/results/native_{options.what}.json")
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    image = torch.randn(1, 3, *SIZES[options.what])
    if options.what == "classifier":
        sides = classifiers(image, options.threads)
    else:
        sides = others(options.what, image, options.threads)
    block = min(20, options.rounds)
    measure(sides, rounds=2, clock="wall")  # warm-up
    blocks, peaks = [], []
    for _ in range(max(1, options.rounds // block)):
        blocks.append(measure(sides, rounds=block, clock="wall"))
        time.sleep(SETTLED)
        peaks.append(peak(options.threads))
    rows: dict[str, dict[str, Any]] = {
        name: {
            "ms_min": min(one[name]["ms_min"] for one in blocks),
            "ms_median": statistics.median(one[name]["ms_median"] for one in blocks),
            "precision": side.precision,
        }
        for name, side in sides.items()
    }
    for name in WIDTHS[options.what]:
        counted = measure_by_name(name, size=SIZES[options.what])
        macs = counted.macs + counted.transposed_macs + counted.linear_macs
        floor = 1000 * macs / max(peaks)
        own = rows[f"{name} native fp32"]
        own |= {"macs": macs, "floor_ms": round(floor, 3)}
        own["over_floor"] = round(own["ms_min"] / floor, 3)
    result = {
        "size": SIZES[options.what],
        "batch": 1,
        "threads": options.threads,
        "rounds": block * len(blocks),
        "instruction_set": espnetv2_native.instruction_set(),
        "peak_macs_per_second": max(peaks),
        "rows": rows,
        **machine(),
        "date": date.today().isoformat(),
        "commit": subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip(),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
