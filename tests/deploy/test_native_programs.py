"""Programs that no network here makes, but a model file may state."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save

native = pytest.importorskip("espnetv2_native", reason="the native engine is not built")


def drawn(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) / 4


def check(steps, arrays, given, expected):
    """One map, for one thread and for three."""
    output = {"name": "o", "in": [steps[-1]["out"]], "form": "map"}
    program = json.dumps({"channels": 3, "steps": steps, "outputs": [output]})
    header = {"format": "espnetv2-native/1", "precision": "fp32", "program": program}
    model = native.Model.of(save(arrays, header))
    for threads in (1, 3):
        found = model.open(*given.shape[:1], *given.shape[2:], threads).run(given.numpy())[0]
        assert np.abs(found - expected.numpy()).max() <= 1e-5 * expected.abs().max()


def test_a_flat_map_and_a_residual_with_a_border():
    given = drawn(2, 3, 12, 11, seed=0)
    first, left, right = (
        drawn(8, 3, 1, 1, seed=1),
        drawn(8, 8, 1, 1, seed=2),
        drawn(8, 8, 1, 1, seed=3),
    )
    mixed, seen = drawn(8, 8, 1, 1, seed=4), drawn(8, 16, 3, 3, seed=5)
    steps = [
        {"op": "conv", "in": ["image"], "out": "a", "weight": "first"},
        {"op": "conv", "in": ["a"], "out": "b", "weight": "left"},
        {"op": "conv", "in": ["a"], "out": "c", "weight": "right"},
        {"op": "conv", "in": ["b"], "out": "d", "weight": "mixed", "residual": "c"},
        {"op": "concat", "in": ["c", "d"], "out": "e"},
        {"op": "conv", "in": ["e"], "out": "f", "weight": "seen"},
    ]
    a = F.conv2d(given, first)
    c = F.conv2d(a, right)
    d = F.conv2d(F.conv2d(a, left), mixed) + c
    expected = F.conv2d(torch.cat([c, d], 1), seen, padding=1)
    arrays = {"first": first, "left": left, "right": right, "mixed": mixed, "seen": seen}
    check(steps, arrays, given, expected)


def test_a_map_seen_from_beside_it():
    """What a depth-wise convolution makes lies beside what it reads, rows around included."""
    given = drawn(1, 3, 192, 200, seed=0)
    first, near, both = (
        drawn(8, 3, 3, 3, seed=1),
        drawn(8, 1, 3, 3, seed=2),
        drawn(8, 2, 3, 3, seed=3),
    )
    second = drawn(8, 8, 1, 1, seed=4)
    steps = [
        {"op": "conv", "in": ["image"], "out": "a", "weight": "first"},
        {"op": "conv", "in": ["a"], "out": "b", "weight": "second"},
        {"op": "pyramid", "in": ["b"], "out": "c", "branches": [{"weight": "near"}]},
        {"op": "pyramid", "in": ["c", "b"], "out": "d", "branches": [{"weight": "both"}]},
    ]
    b = F.conv2d(F.conv2d(given, first, padding=1), second)
    c = F.conv2d(b, near, padding=1, groups=8)
    pairs = torch.stack([c, b], 2).flatten(1, 2)
    expected = F.conv2d(pairs, both, padding=1, groups=8)
    check(steps, {"first": first, "near": near, "both": both, "second": second}, given, expected)
