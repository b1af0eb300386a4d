"""What each task counts while pictures go by, for several protocols at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from espnetv2.data.sample import Dataset, Sample
from espnetv2.errors import UserError
from espnetv2.tasks import confusion, segment
from espnetv2.tasks.confusion import Confusion
from espnetv2.tasks.protocols import ClassificationProtocol, SegmentationProtocol
from espnetv2.tasks.scores import ClassScore, Scores


class Meter(Protocol):
    """Counts what predictions and truth have in common."""

    def update(self, answers: Any, samples: Sequence[Any]) -> None:
        """Count a batch of predictions."""
        ...

    def counts(self) -> Any:
        """All that was counted, for another process."""
        ...

    def add(self, counts: Any) -> None:
        """Count what another process has."""
        ...

    def scores(self, *, pictures: int, seconds: float) -> list[Scores]:
        """One result per protocol."""
        ...


class SegmentationMeter:
    """One confusion matrix for each way of bringing predictions and labels together.

    Protocols that differ in void only read the same matrix.
    """

    def __init__(self, dataset: Dataset, protocols: dict[str, SegmentationProtocol]) -> None:
        self.dataset = dataset
        self.protocols = protocols
        ways = {(protocol.at, protocol.enlarge) for protocol in protocols.values()}
        self.confusions = {way: Confusion(dataset.scored) for way in ways}
        self.channels = 0

    def update(self, answers: Any, samples: Sequence[Sample]) -> None:
        """Count a batch.

        Shape: logits (B, classes, h, w)

        Raises:
            UserError: The network has fewer classes than the data set scores, or more than its
                classes and void.
        """
        logits = torch.as_tensor(answers)
        self._check(logits)
        self.channels = logits.shape[1]
        for one, sample in zip(logits, samples, strict=True):
            target = np.asarray(sample.target)
            small = segment.argmax(one)  # (h, w)
            for (at, enlarge), counts in self.confusions.items():
                if at == "network":
                    counts.update(small, segment.resize_labels(target, small.shape))
                elif enlarge == "nearest":
                    counts.update(segment.resize_labels(small, target.shape), target)
                else:
                    counts.update(segment.label_map(one, target.shape, enlarge=enlarge), target)

    def counts(self) -> tuple[int, dict[tuple[str, str], np.ndarray]]:
        """See `Meter`."""
        return self.channels, {way: one.counts for way, one in self.confusions.items()}

    def add(self, counts: tuple[int, dict[Any, np.ndarray]]) -> None:
        """See `Meter`."""
        channels, matrices = counts
        self.channels = max(self.channels, channels)
        for way, matrix in matrices.items():
            self.confusions[way].counts += matrix

    def scores(self, *, pictures: int, seconds: float) -> list[Scores]:
        """One result per protocol."""
        return [
            Scores(name, *self._read(protocol), pictures, seconds)
            for name, protocol in self.protocols.items()
        ]

    def _check(self, logits: torch.Tensor) -> None:
        if logits.ndim != 4:
            raise UserError(
                f"the network gives outputs of shape {tuple(logits.shape)}, not label maps; "
                "use a segmentation network"
            )
        scored, known = self.dataset.scored, len(self.dataset.classes)
        if not scored <= logits.shape[1] <= max(scored + 1, known):
            raise UserError(
                f"the network has {logits.shape[1]} classes but the data set {scored} and void; "
                "use weights that were trained on it"
            )

    def _read(
        self, protocol: SegmentationProtocol
    ) -> tuple[dict[str, float], dict[str, ClassScore]]:
        counts = self.confusions[protocol.at, protocol.enlarge].seen(void=protocol.void)
        ious, recalls = 100 * confusion.iou(counts), 100 * confusion.recall(counts)
        scored = self.dataset.scored
        metrics = {
            "mean_iou": _mean(ious[:scored]),  # D51
            "mean_recall": _mean(recalls[:scored]),
            "global_accuracy": 100 * confusion.accuracy(counts),
        }
        untrained = self.channels > scored and self.dataset.ignore not in range(self.channels)
        if protocol.at == "network" and untrained:
            # D52: EdgeNets' meter counts the untrained channel as a class of IoU 0
            metrics["meter_mean_iou"] = float(np.nan_to_num(ious[:scored]).sum() / self.channels)
        if self.dataset.groups:
            groups = confusion.merged(counts, list(self.dataset.groups.values()))
            metrics["category_mean_iou"] = _mean(100 * confusion.iou(groups)[:-1])
        shown = scored + (protocol.void and len(self.dataset.classes) > scored)
        per_class = {
            self.dataset.classes[index]: ClassScore(
                {"iou": float(ious[index]), "recall": float(recalls[index])},
                int(counts[index].sum()),
                averaged=index < scored,
            )
            for index in range(shown)
        }
        return metrics, per_class


class ClassificationMeter:
    """Hits among the best few, per class."""

    def __init__(self, dataset: Dataset, protocols: dict[str, ClassificationProtocol]) -> None:
        self.dataset = dataset
        self.protocols = protocols
        self.deepest = max(depth for protocol in protocols.values() for depth in protocol.top)
        self.ranks: Counter[tuple[int, int]] = Counter()

    def update(self, answers: Any, samples: Sequence[Sample]) -> None:
        """Count a batch.

        Shape: logits (B, classes)

        Raises:
            UserError: The network has another number of classes than the data set.
        """
        logits, classes = torch.as_tensor(answers), len(self.dataset.classes)
        if logits.ndim != 2 or logits.shape[1] != classes:
            raise UserError(
                f"the network gives outputs of shape {tuple(logits.shape)}, not scores of the "
                f"data set's {classes} classes; use a classifier that was trained on it"
            )
        best = logits.topk(min(self.deepest, classes), dim=1).indices.tolist()
        for row, sample in zip(best, samples, strict=True):
            target = int(sample.target)
            self.ranks[target, row.index(target) if target in row else self.deepest] += 1

    def counts(self) -> Counter[tuple[int, int]]:
        """See `Meter`."""
        return self.ranks

    def add(self, counts: Counter[tuple[int, int]]) -> None:
        """See `Meter`."""
        self.ranks.update(counts)

    def scores(self, *, pictures: int, seconds: float) -> list[Scores]:
        """One result per protocol."""
        return [
            Scores(name, *self._read(protocol), pictures, seconds)
            for name, protocol in self.protocols.items()
        ]

    def _read(
        self, protocol: ClassificationProtocol
    ) -> tuple[dict[str, float], dict[str, ClassScore]]:
        totals: Counter[int] = Counter()
        hits: dict[int, Counter[int]] = {depth: Counter() for depth in protocol.top}
        for (target, rank), number in self.ranks.items():
            totals[target] += number
            for depth in protocol.top:
                hits[depth][target] += number * (rank < depth)
        metrics = {
            f"top{depth}": 100 * hits[depth].total() / totals.total() for depth in protocol.top
        }
        per_class = {
            self.dataset.classes[target]: ClassScore(
                {f"top{d}": 100 * hits[d][target] / totals[target] for d in protocol.top},
                totals[target],
            )
            for target in sorted(totals)
        }
        return metrics, per_class


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
