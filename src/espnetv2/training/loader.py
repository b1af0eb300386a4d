"""Batches whose order and content depend only on seed, epoch and index: resume is exact."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from espnetv2.training.saving import leave_interrupts_to_the_main_process


class TrainingLoader:
    """Shuffled batches of one process; knows where it stands.

    Every epoch permutes the set anew, as a function of seed and epoch; each process takes every
    `world`-th sample, and what does not fill a batch for every process is left for another
    epoch. Lightning stores `state_dict` in its checkpoints and hands it back before it asks for
    the first batch, so that a run goes on with the very next one.

    Args:
        dataset: With `set_epoch(epoch)`, so that its random changes follow the epoch.
        rank: Of this process among `world`.
        limit: Batches of an epoch, at most.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        *,
        batch_size: int,
        collate: Callable[[list[Any]], Any],
        workers: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        limit: int | None = None,
        pin: bool = False,
    ) -> None:
        self.dataset, self.batch_size, self.collate = dataset, batch_size, collate
        self.workers, self.seed, self.rank, self.world, self.pin = workers, seed, rank, world, pin
        self.limit = limit
        self.epoch = 0
        self.done = 0

    def __len__(self) -> int:
        size = len(self.dataset)  # type: ignore[arg-type]
        whole = max(1, size // (self.batch_size * self.world))
        return whole if self.limit is None else min(whole, self.limit)

    def __iter__(self) -> Iterator[Any]:
        if self.done >= len(self):  # who knows the length never asks for one batch more
            self.epoch, self.done = self.epoch + 1, 0
        self.dataset.set_epoch(self.epoch)  # type: ignore[attr-defined]
        batches = self.batches(self.epoch)[self.done :]
        loader = DataLoader(
            self.dataset,
            batch_sampler=batches,
            collate_fn=self.collate,
            num_workers=self.workers,
            pin_memory=self.pin,
            worker_init_fn=leave_interrupts_to_the_main_process,
        )
        for batch in loader:
            self.done += 1
            yield batch

    def batches(self, epoch: int) -> list[list[int]]:
        """Indices of this process's batches in an epoch."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        size = len(self.dataset)  # type: ignore[arg-type]
        order = torch.randperm(size, generator=generator).tolist()
        own = order[self.rank :: self.world]
        if len(order) < self.batch_size * self.world:
            return [own]
        return [own[i * self.batch_size : (i + 1) * self.batch_size] for i in range(len(self))]

    def state_dict(self) -> dict[str, int]:
        """Where it stands."""
        return {"epoch": self.epoch, "done": self.done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from there."""
        self.epoch, self.done = state["epoch"], state["done"]


class ShareOf(Dataset[Any]):
    """Every `world`-th sample from `rank` on: over all processes each sample exactly once."""

    def __init__(self, dataset: Dataset[Any], *, rank: int, world: int) -> None:
        self.dataset = dataset
        self.indices = range(rank, len(dataset), world)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[self.indices[index]]
