"""Pictures a second: our training loader beside plain torchvision, same folder, same crops.

    python benchmarks/data_loading.py IMAGENETTE [--rounds 7] [--workers 2]

Both sides read the same number of batches in turns; the ratio is the median over rounds. Each side
starts its workers anew in every round, as in every epoch of a training.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from espnetv2.data.training_sets import DataSpec, open_training_data
from espnetv2.training.loader import TrainingLoader

SIZE = 128
BATCH = 64


def ours(folder: Path, workers: int, batches: int) -> Iterable[Any]:
    """The loader of `espnetv2 train imagenette`."""
    spec = DataSpec(
        format="imagefolder",
        root=folder,
        size=(SIZE, SIZE),
        convention="imagenet",
        augment="imagenet-light",
    )
    data = open_training_data(spec, task="classification")
    return TrainingLoader(
        data.train,
        batch_size=BATCH,
        collate=data.collate,
        workers=workers,
        seed=0,
        limit=batches,
    )


def theirs(folder: Path, workers: int, batches: int) -> Iterable[Any]:
    """ImageFolder, RandomResizedCrop, flip, tensor, normalise: what every tutorial does."""
    change = v2.Compose(
        [
            v2.RandomResizedCrop(SIZE, scale=(0.35, 1.0)),
            v2.RandomHorizontalFlip(),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    pictures = torchvision.datasets.ImageFolder(folder / "train", change)
    order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(0)).tolist()
    chosen = torch.utils.data.Subset(pictures, order[: batches * BATCH])
    return DataLoader(chosen, batch_size=BATCH, num_workers=workers)


def rate(loader: Iterable[Any]) -> float:
    """Pictures a second over one pass."""
    start = time.perf_counter()
    count = sum(len(images) for images, _ in loader)
    return count / (time.perf_counter() - start)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/data_loading.json"))
    options = parser.parse_args()
    loaders = {
        "torchvision": theirs(options.folder, options.workers, options.batches),
        "espnetv2": ours(options.folder, options.workers, options.batches),
    }
    for loader in loaders.values():  # files into the page cache
        rate(loader)
    rates: dict[str, list[float]] = {name: [] for name in loaders}
    for number in range(options.rounds):
        for name in list(loaders) if number % 2 == 0 else list(loaders)[::-1]:
            rates[name].append(rate(loaders[name]))
    ratios = [a / b for a, b in zip(rates["espnetv2"], rates["torchvision"], strict=True)]
    result = {
        "images_per_second": {name: statistics.median(values) for name, values in rates.items()},
        "ratio_to_torchvision": statistics.median(ratios),
        "workers": options.workers,
        "batch": BATCH,
        "size": SIZE,
        "rounds": options.rounds,
        "machine": platform.machine(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "date": date.today().isoformat(),
        "commit": subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip(),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
