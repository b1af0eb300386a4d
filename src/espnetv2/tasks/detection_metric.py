"""A validation metric that collects boxes of all batches and processes, and computes precision."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from espnetv2.tasks.box_ap import (
    VOC_PIXEL,
    FoundBoxes,
    TrueBoxes,
    coco_average_precision,
    voc_average_precision,
)
from espnetv2.tasks.results import Detections

_COLUMNS = 7  # picture, label, score or difficult, x1, y1, x2, y2


class DetectionAveragePrecision(Metric):
    """Average precision of the boxes of a whole split, gathered over processes.

    Each process numbers its pictures as they come, so several processes must see different
    ones: every picture is then counted once.

    Args:
        num_classes: Without background.
        coco: Whether to compute COCO's measure too; by default where the extra `detection` is
            installed.
    """

    full_state_update = False
    higher_is_better = True

    found: list[Tensor] | Tensor
    truth: list[Tensor] | Tensor
    pictures: Tensor

    def __init__(self, num_classes: int, *, coco: bool | None = None) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.coco = find_spec("faster_coco_eval") is not None if coco is None else coco
        # flat, so that a process without boxes gathers what the others do
        self.add_state("found", default=[], dist_reduce_fx="cat")
        self.add_state("truth", default=[], dist_reduce_fx="cat")
        self.add_state("pictures", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(
        self, detections: Sequence[Detections], truths: Sequence[tuple[Tensor, Tensor, Tensor]]
    ) -> None:
        """Count a batch.

        Args:
            detections: One for each picture.
            truths: Boxes (n, 4) in pixels, labels (n,) from 0 as in the detections, and which of
                them are difficult (n,).
        """
        assert isinstance(self.found, list)
        assert isinstance(self.truth, list)
        for found, (boxes, labels, difficult) in zip(detections, truths, strict=True):
            picture = self._number()
            rows = (torch.from_numpy(part) for part in (found.boxes, found.labels, found.scores))
            self.found.append(self._rows(picture, *rows))
            self.truth.append(self._rows(picture, boxes, labels, difficult))
            self.pictures += 1

    def compute(self) -> dict[str, Tensor]:
        """Means over the classes that occur, 0 to 1.

        Returns:
            "ap50" (VOC, all recalls), "ap11" (VOC, eleven recalls), and with COCO's measure
            "ap_coco", "ap50_coco" and "ap75_coco".
        """
        found, truth = _table(self.found), _table(self.truth)
        columns = FoundBoxes(*_columns(found))
        truths = TrueBoxes(*_columns(truth))
        truths = truths._replace(difficult=truths.difficult > 0)
        values = {
            name: voc_average_precision(
                columns,
                truths,
                classes=self.num_classes,
                eleven_points=eleven,
                pixel=VOC_PIXEL,
            )
            for name, eleven in (("ap50", False), ("ap11", True))
        }
        if self.coco:
            coco = coco_average_precision(columns, truths, classes=self.num_classes)
            values |= {"ap_coco": coco.ap, "ap50_coco": coco.ap50, "ap75_coco": coco.ap75}
        return {name: torch.tensor(mean(value)) for name, value in values.items()}

    def _number(self) -> int:
        """A number that no other process gives."""
        rank, world = 0, 1
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
        return int(self.pictures) * world + rank

    def _rows(self, picture: int, boxes: Tensor, labels: Tensor, values: Tensor) -> Tensor:
        """Shape: (n, 4), (n,), (n,) -> (7 n,)."""
        numbers = torch.full_like(labels, picture)
        head = torch.stack([column.to(self.device, self.dtype) for column in (numbers, labels)], 1)
        values = values.to(self.device, self.dtype)[:, None]
        return torch.cat([head, values, boxes.to(self.device, self.dtype)], dim=1).flatten()


def mean(values: np.ndarray) -> float:
    """The mean of what is known; nan where nothing is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _table(state: list[Tensor] | Tensor) -> np.ndarray:
    if isinstance(state, list):
        state = torch.cat(state) if state else torch.zeros(0)
    return np.asarray(state.cpu().reshape(-1, _COLUMNS).numpy())


def _columns(table: np.ndarray) -> tuple[Any, Any, Any, Any]:
    return table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), table[:, 2], table[:, 3:]
