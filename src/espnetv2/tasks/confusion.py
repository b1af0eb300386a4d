"""Who was taken for whom: the count behind every segmentation score."""

from __future__ import annotations

import numpy as np


class Confusion:
    """Pixel counts over a whole data set, true class by row and predicted class by column.

    One more row and column holds void: pixels without a label, and predictions of a class that
    does not count. Both ways of treating void are read from the same counts.

    Args:
        classes: Classes that count; every value from there up is void.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.counts = np.zeros((classes + 1, classes + 1), dtype=np.int64)

    def update(self, prediction: np.ndarray, target: np.ndarray) -> None:
        """Add one picture's label maps.

        Shape: prediction (H, W) and target (H, W), integers from 0
        """
        if prediction.shape != target.shape:
            raise ValueError(f"prediction {prediction.shape} is not as large as {target.shape}")
        rows = np.minimum(target, self.classes).astype(np.int64)
        columns = np.minimum(prediction, self.classes).astype(np.int64)
        side = self.classes + 1
        flat = np.bincount((rows * side + columns).ravel(), minlength=side * side)
        self.counts += flat.reshape(side, side)

    def seen(self, *, void: bool) -> np.ndarray:
        """The counts with void ground truth, or with its row emptied.

        Predictions of void on labelled pixels stay: they are misses.

        Shape: int64 (classes + 1, classes + 1)
        """
        counts: np.ndarray = self.counts.copy()
        if not void:
            counts[-1] = 0
        return counts


def iou(counts: np.ndarray) -> np.ndarray:
    """Intersection over union per class; nan for a class that neither occurs nor is predicted.

    Shape: (K, K) -> float64 (K,)
    """
    hits = np.diag(counts)
    return _share(hits, counts.sum(0) + counts.sum(1) - hits)


def recall(counts: np.ndarray) -> np.ndarray:
    """Share of each class's pixels that were found; nan for a class that does not occur.

    Shape: (K, K) -> float64 (K,)
    """
    return _share(np.diag(counts), counts.sum(1))


def accuracy(counts: np.ndarray) -> float:
    """Share of all counted pixels that were right; nan without any."""
    return float(_share(np.trace(counts), counts.sum()))


def merged(counts: np.ndarray, groups: list[tuple[int, ...]]) -> np.ndarray:
    """The counts between groups of classes; void stays last.

    Shape: (K + 1, K + 1) -> (groups + 1, groups + 1)
    """
    members = np.zeros((len(groups) + 1, len(counts)), dtype=np.int64)
    for row, group in enumerate([*groups, (len(counts) - 1,)]):
        members[row, list(group)] = 1
    return np.asarray(members @ counts @ members.T)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(whole > 0, part / whole, np.nan))
