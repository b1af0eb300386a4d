"""Several processes that judge one data set: which one this is, and what the others counted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist


def place() -> tuple[int, int]:
    """Number of this process, and how many there are."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def gather(value: Any) -> list[Any]:
    """What each process gave, in their order; all of them must call this."""
    count = place()[1]
    if count == 1:
        return [value]
    values: list[Any] = [None] * count
    dist.all_gather_object(values, value)
    return values


@contextmanager
def joined() -> Iterator[int]:
    """Join the processes that torchrun started, if it did; gives this one's number on its machine.

    Counts are small and travel between processors, whatever computes the answers.
    """
    # torchrun tells its workers by these variables
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        yield int(os.environ.get("LOCAL_RANK", "0"))
        return
    dist.init_process_group("gloo")
    try:
        yield int(os.environ["LOCAL_RANK"])
    finally:
        dist.destroy_process_group()
