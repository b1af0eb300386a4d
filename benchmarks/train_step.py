"""What a training step costs: ours, the official layer sequence, and through Lightning.

    python benchmarks/train_step.py [--rounds 15] [--out benchmarks/results/train_step.json]

Every comparison runs both sides alternately in one process and reports medians of the ratio of
neighbouring measurements, so that a busy machine slows both. Before the clock starts, the official
sequence must give our logits and gradients.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import platform
import statistics
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from official_sequence import OfficialSequence
from torch import Tensor, nn

import espnetv2
from espnetv2.tasks.training import ClassificationTraining
from espnetv2.training.callbacks import Checkpoints, History
from espnetv2.training.loader import TrainingLoader
from espnetv2.training.module import TrainingModule, make_optimizer
from espnetv2.training.recipe import load_recipe
from espnetv2.training.trainer import Run, make_trainer

CLASSES = 10


def bare_step(
    network: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, targets: Tensor
) -> float:
    """Forward, backward and update by hand, as plainly as it can be written."""
    loss = F.cross_entropy(network(images), targets, label_smoothing=0.1)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


class Fixed(torch.utils.data.Dataset[Any]):
    """The same batch again and again, so that loading costs nothing."""

    def __init__(self, images: Tensor, targets: Tensor, steps: int) -> None:
        self.images, self.targets, self.steps = images, targets, steps

    def set_epoch(self, epoch: int) -> None:
        """Nothing changes."""

    def __len__(self) -> int:
        return len(self.images) * self.steps

    def __getitem__(self, index: int) -> int:
        return index


def lightning_seconds(recipe: Any, network: nn.Module, data: Fixed) -> float:
    """Seconds a step of `espnetv2 train`'s own trainer, callbacks and task; first step left out."""
    marks: list[float] = []

    class Module(TrainingModule):
        def on_train_batch_start(self, batch: Any, index: int) -> None:
            marks.append(time.perf_counter())
            super().on_train_batch_start(batch, index)

    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(scratch)
        task = ClassificationTraining(CLASSES, label_smoothing=0.1)
        checkpoints = Checkpoints(folder, steps=10**9, monitor="val_top1", mode="max")
        run = Run(data=folder, out=folder, device="cpu", progress=False)
        trainer = make_trainer(recipe, run, folder, History(folder), checkpoints)
        loader = TrainingLoader(
            data,
            batch_size=len(data.images),
            collate=lambda _: (data.images, data.targets),
            workers=0,
            seed=0,
        )
        trainer.fit(Module(network, task, recipe, steps=len(loader)), loader)
    gaps = [b - a for a, b in itertools.pairwise(marks)]
    return statistics.median(gaps[1:])


def bare_seconds(recipe: Any, network: nn.Module, data: Fixed) -> float:
    """Seconds a step of the bare loop; first step left out."""
    optimizer = make_optimizer(network.train(), recipe)
    marks = []
    for _ in range(data.steps):
        marks.append(time.perf_counter())
        bare_step(network, optimizer, data.images, data.targets)
    gaps = [b - a for a, b in itertools.pairwise(marks)]
    return statistics.median(gaps[1:])


def alternate(sides: dict[str, Callable[[], float]], rounds: int) -> dict[str, Any]:
    """Medians of every side, and of its ratio to the first one within the same round."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        order = list(sides) if number % 2 == 0 else list(sides)[::-1]
        for name in order:
            times[name].append(sides[name]())
    first = next(iter(sides))
    return {
        name: {
            "median_s": statistics.median(values),
            "min_s": min(values),
            f"ratio_to_{first}": statistics.median(
                v / w for v, w in zip(values, times[first], strict=True)
            ),
        }
        for name, values in times.items()
    }


def once(network: Any, images: Tensor, targets: Tensor) -> Callable[[], float]:
    """One timed step after another, with an optimiser of its own."""
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)

    def step() -> float:
        start = time.perf_counter()
        bare_step(network, optimizer, images, targets)
        return time.perf_counter() - start

    step()  # warm-up; compiles, if it is to be compiled
    return step


def same_answer(network: nn.Module, images: Tensor, targets: Tensor) -> float:
    """Largest relative difference of loss gradients between ours and the official sequence."""
    gradients = []
    for wrap in (lambda n: n, OfficialSequence):
        one = copy.deepcopy(network).train()
        one.dropout.p = 0.0
        F.cross_entropy(wrap(one)(images), targets).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in one.parameters()]))
    return float((gradients[0] - gradients[1]).norm() / gradients[0].norm())


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--model", default="espnetv2_s0_5")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/train_step.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    images = torch.randn(options.batch, 3, options.size, options.size)
    images = images.contiguous(memory_format=torch.channels_last)
    targets = torch.randint(CLASSES, (options.batch,))

    def fresh() -> nn.Module:
        torch.manual_seed(0)
        made = espnetv2.create_model(options.model, num_classes=CLASSES)
        return made.to(memory_format=torch.channels_last)

    difference = same_answer(fresh(), images, targets)
    if difference > 1e-4:
        raise SystemExit(f"the official sequence answers differently: {difference}")
    recipe = load_recipe("imagenette", changes=["epochs=1", "ema=null", "stages=[]"])
    data = Fixed(images, targets, steps=12)
    ours, theirs = fresh(), fresh()
    overhead = alternate(
        {
            "bare": lambda: bare_seconds(recipe, theirs, data),
            "lightning": lambda: lightning_seconds(recipe, ours, data),
        },
        max(3, options.rounds // 3),
    )
    rivals = {
        "mobilenet_v2": torchvision.models.mobilenet_v2,
        "shufflenet_v2_x0_5": torchvision.models.shufflenet_v2_x0_5,
        "shufflenet_v2_x1_0": torchvision.models.shufflenet_v2_x1_0,
    }
    sides = {
        "ours": once(fresh(), images, targets),
        "ours_compiled": once(torch.compile(fresh()), images, targets),
        "official_sequence": once(OfficialSequence(fresh()), images, targets),
    }
    for name, build in rivals.items():
        network = build(num_classes=CLASSES).to(memory_format=torch.channels_last)
        sides[name] = once(network, images, targets)
    steps = alternate(sides, options.rounds)
    for row in steps.values():
        row["images_per_second"] = options.batch / row["median_s"]
    result = {
        "model": options.model,
        "batch": options.batch,
        "size": options.size,
        "threads": options.threads,
        "gradient_difference": difference,
        "overhead": overhead,
        "steps": steps,
        "machine": platform.machine(),
        "processor": _processor(),
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


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
