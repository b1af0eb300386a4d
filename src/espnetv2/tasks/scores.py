"""What an evaluation found."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class ClassScore:
    """One class's line of the table, in per cent; nan where the class gives no answer.

    Attributes:
        values: By name: "iou" and "recall", or "top1", "f1", "ap50" and the like.
        count: Ground-truth pixels, boxes or pictures.
        averaged: Whether the class is in the means; void is not.
    """

    values: dict[str, float]
    count: int
    averaged: bool = True


@dataclass(frozen=True)
class Scores:
    """The outcome of one protocol on one data set.

    Attributes:
        protocol: Its name.
        metrics: In per cent, except for a text; the first is the one that is quoted.
        per_class: By class name.
        pictures: How many were judged; words of a text.
        seconds: Time for the whole run, data and all protocols included.
        unit: "pictures" or "words".
    """

    protocol: str
    metrics: dict[str, float]
    per_class: dict[str, ClassScore]
    pictures: int
    seconds: float
    unit: str = "pictures"

    def to_json(self) -> dict[str, Any]:
        """Plain values; nan becomes null."""
        return {
            "protocol": self.protocol,
            "metrics": _plain(self.metrics),
            "per_class": {
                name: {**asdict(score), "values": _plain(score.values)}
                for name, score in self.per_class.items()
            },
            self.unit: self.pictures,
            "seconds": round(self.seconds, 2),
        }


def _plain(values: dict[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else round(value, 4) for name, value in values.items()}
