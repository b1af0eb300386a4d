"""Random numbers for augmentation: one generator per sample, a function of seed, epoch, index."""

from __future__ import annotations

import hashlib

import torch
from torch import Generator


def sample_generator(seed: int, epoch: int, index: int) -> Generator:
    """The generator of one sample in one epoch; workers and order have no say."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{index}".encode(), digest_size=8).digest()
    generator = Generator()
    generator.manual_seed(int.from_bytes(digest, "little") >> 1)
    return generator


def uniform(generator: Generator, low: float, high: float) -> float:
    """A number from [low, high)."""
    share: float = torch.rand((), generator=generator, dtype=torch.float64).item()
    return low + (high - low) * share


def integer(generator: Generator, highest: int) -> int:
    """A whole number from 0 to `highest`, both included."""
    return int(torch.randint(highest + 1, (), generator=generator).item())


def chance(generator: Generator, probability: float = 0.5) -> bool:
    """True with that probability."""
    return uniform(generator, 0.0, 1.0) < probability
