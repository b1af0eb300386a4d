"""Export a network and compare the engines of this machine: difference, milliseconds, megabytes.

python examples/compare_engines.py [--weights NAME|FILE] [--to native,onnx] [--size 256x320]

One process and few calls, to see whether a target works; `espnetv2 benchmark` measures properly.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from espnetv2.deploy.engines import open_artefact
from espnetv2.deploy.export import export
from espnetv2.deploy.subject import Settings
from espnetv2.weights.load import load_network


def milliseconds(call: Callable[[np.ndarray], object], image: np.ndarray) -> float:
    times = []
    for _ in range(12):
        start = time.perf_counter()
        call(image)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[2:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="espnetv2_seg_s0_5.camvid")
    parser.add_argument("--to", default="native,onnx")
    parser.add_argument("--size", default="256x320")
    arguments = parser.parse_args()

    size = tuple(int(side) for side in arguments.size.split("x"))
    loaded = load_network(arguments.weights)
    image = np.random.default_rng(0).standard_normal((1, 3, *size)).astype(np.float32)
    with torch.inference_mode():
        truth = loaded.network(torch.from_numpy(image)).numpy()
        slow = milliseconds(lambda x: loaded.network(torch.from_numpy(x)), image)
    print(f"{'train form in torch':22} {slow:8.2f} ms")
    with tempfile.TemporaryDirectory() as folder:
        for target in arguments.to.split(","):
            artefact = export(loaded, target, Path(folder) / target, Settings(size=size))
            engine = open_artefact(artefact.folder, threads=torch.get_num_threads())
            gap = np.abs(engine.run(image)[0] - truth).max() / np.abs(truth).max()
            fast = milliseconds(engine.run, image)
            megabytes = artefact.bytes / 1e6
            print(f"{target:22} {fast:8.2f} ms, off by {gap:.0e}, {megabytes:.1f} MB")


if __name__ == "__main__":
    main()
