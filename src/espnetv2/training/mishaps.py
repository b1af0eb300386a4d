"""What ends a run from outside, said in one line: no memory, a bad sample in a worker process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from espnetv2.errors import UserError
from espnetv2.training.recipe import Recipe

_NO_MEMORY = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "Cannot allocate memory",
    "Unable to allocate",
    "bad_alloc",
    "ALLOC_FAILED",
    "is killed by signal: Killed",  # a worker, by the system, which does so when memory ends
)
_NO_SHARED_MEMORY = ("shared memory", "is killed by signal: Bus error")
_COMPILER = ("torch._dynamo", "torch._inductor")
_TOO_FEW = "Expected more than 1 value per channel"  # torch's batch norm in training


class LossError(UserError):
    """A step's loss is infinite or no number: the weights before it are no good any more."""


@contextmanager
def one_line(recipe: Recipe) -> Iterator[None]:
    """Turn what a user can mend into a `UserError` of one line; all else passes as it is.

    Raises:
        UserError: Memory has run out, a batch is too small for norms, the compiler fails, or a
            worker process has met a `UserError`, which comes with that process's traceback.
    """
    try:
        yield
    except UserError as error:
        text = str(error)
        if "\n" not in text:
            raise
        last = text.strip().splitlines()[-1]
        raise UserError(last.partition("UserError: ")[2] or last) from error
    except ValueError as error:
        if _TOO_FEW not in str(error):
            raise
        batch, (height, width) = recipe.data.batch_size, recipe.data.size
        raise UserError(
            f"batch norms have a single value a channel in a batch of {batch} of {height}x{width}; "
            "take more or larger pictures (data.batch_size, data.size), or --set freeze_norm=frozen"
        ) from error
    except (MemoryError, RuntimeError, OSError) as error:
        text = str(error)
        if type(error).__module__.startswith(_COMPILER):
            raise UserError(
                f"compile={recipe.compile}: {text.splitlines()[0]}; leave it out, or choose "
                "another mode"
            ) from error
        if any(words in text for words in _NO_SHARED_MEMORY):
            raise UserError(
                "the workers have too little shared memory (/dev/shm); enlarge it, or read "
                "without them: --set data.workers=0"
            ) from error
        scarce = isinstance(error, (MemoryError, torch.OutOfMemoryError))
        if scarce or any(words in text for words in _NO_MEMORY):
            raise UserError(f"out of memory with {_advice(recipe)}") from error
        raise


def _advice(recipe: Recipe) -> str:
    """What the batches are, and smaller ones that learn much the same."""
    batch, (height, width) = recipe.data.batch_size, recipe.data.size
    if recipe.task == "language":
        return (
            f"{batch} streams of about {recipe.language.bptt} words; lower them: --set "
            f"data.batch_size={max(1, batch // 2)} or --set language.bptt="
            f"{max(1, recipe.language.bptt // 2)}"
        )
    if batch == 1:
        half = f"[{max(32, height // 2)},{max(32, width // 2)}]"
        return f"a single picture of {height}x{width}; make it smaller: --set data.size={half}"
    return (
        f"batches of {batch} pictures of {height}x{width}; take smaller ones and step as rarely "
        f"as before: --set data.batch_size={batch // 2} --set accumulate={2 * recipe.accumulate}"
    )
