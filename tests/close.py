"""The one place for tolerances."""

import numpy as np
import torch

FLOAT64 = 1e-12
"""Relative RMS allowed between equal formulas in float64."""
FLOAT32 = 1e-5
"""Relative RMS allowed between equal networks in float32."""
LOGITS = 1e-4
"""Absolute difference allowed to official segmentation logits (range about +-20)."""
SCORES = 1e-5
"""Absolute difference allowed to official classification and detection outputs."""


def assert_close(name, actual, expected, ratio=FLOAT32):
    """RMS(error) / RMS(expected) stays under `ratio`."""
    actual, expected = _double(actual), _double(expected)
    assert actual.shape == expected.shape, f"{name}: {actual.shape} is not {expected.shape}"
    error = np.sqrt(np.mean((actual - expected) ** 2))
    scale = np.sqrt(np.mean(expected**2))
    assert error <= ratio * scale, (
        f"{name}: relative RMS {error / max(scale, 1e-300):.3g} > {ratio}"
    )


def assert_within(name, actual, expected, atol):
    """No element differs by more than `atol`."""
    actual, expected = _double(actual), _double(expected)
    assert actual.shape == expected.shape, f"{name}: {actual.shape} is not {expected.shape}"
    worst = np.abs(actual - expected).max() if actual.size else 0.0
    assert worst <= atol, f"{name}: largest difference {worst:.3g} > {atol}"


def _double(values):
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    return np.asarray(values, dtype=np.float64)
