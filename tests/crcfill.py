"""Deterministic weights: each tensor is drawn from its own name, so no file is needed.

The stored reference outputs of the official networks that have no released weights at hand were
made with these; the rules are the ones written beside those outputs.
"""

import zlib

import numpy as np


def crcfill(key, shape):
    """The value of the state-dict entry `key` (official name, without `module.`).

    Float32 of `shape`, or an int64 zero for the counters of batch norm.
    """
    rng = np.random.RandomState(zlib.crc32(key.encode()))
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if key.endswith("running_mean"):
        values = 0.1 * rng.standard_normal(shape)
    elif key.endswith("running_var"):
        values = 0.5 + rng.random_sample(shape)
    elif len(shape) >= 2:
        values = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
    elif key.endswith("bias"):
        values = 0.1 * rng.standard_normal(shape)
    else:  # norm weights and PReLU slopes
        values = 0.2 + rng.random_sample(shape)
    return np.asarray(values, np.float32)


def read_shapes(path):
    """The {official name: shape} of a stored key list (name, `AxBxC` or `scalar`, type)."""
    rows = (line.split("\t") for line in path.read_text().splitlines() if line)
    return {
        key: () if shape == "scalar" else tuple(int(side) for side in shape.split("x"))
        for key, shape, _ in rows
    }
