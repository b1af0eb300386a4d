"""The accuracy gate: an artefact may lose so many points of a score, and not more."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espnetv2.data.evaluation_sets import open_split
from espnetv2.data.preprocess import Preprocessing
from espnetv2.errors import UserError, unknown
from espnetv2.tasks.evaluate import evaluate, predict_for
from espnetv2.tasks.protocols import DEFAULTS, PROTOCOLS

SHORT = {"miou": "mean_iou", "accuracy": "top1"}
"""What people say for what protocols call otherwise."""


@dataclass(frozen=True)
class Judge:
    """A data set that engines are judged on.

    Attributes:
        dataset: Key of `tasks.protocols.DEFAULTS`; its last default protocol is used.
        data: Its folder.
        split: Of the data set.
        limit: Only the first pictures.
    """

    dataset: str
    data: Path
    split: str = "val"
    limit: int | None = None

    def scores(
        self, network: Any, *, task: str, preprocessing: Preprocessing, classes: tuple[str, ...]
    ) -> dict[str, float]:
        """The protocol's metrics, in points, of a network or engine that gives raw outputs.

        Raises:
            UserError: The data set or the split does not fit.
        """
        if self.dataset not in DEFAULTS or self.dataset == "text":
            raise unknown("data set", self.dataset, [name for name in DEFAULTS if name != "text"])
        protocol = DEFAULTS[self.dataset][-1]
        wanted = PROTOCOLS[protocol].task
        if task != wanted and not (wanted == "multilabel" and task == "classification"):
            raise UserError(f"{self.dataset} is for {wanted}, but the network does {task}")
        predict = predict_for(network, task, preprocessing, classes, protocol=protocol)
        samples = open_split(self.dataset, self.data, self.split, classes)
        return evaluate(predict, samples, [protocol], limit=self.limit)[protocol].metrics


@dataclass(frozen=True)
class Gate:
    """How much of a score may be lost.

    Attributes:
        metric: Of the judge's protocol, such as "miou", "top1", "ap50"; higher is better.
        points: That may be lost.
        judge: On what.
    """

    metric: str
    points: float
    judge: Judge

    def score(
        self, network: Any, *, task: str, preprocessing: Preprocessing, classes: tuple[str, ...]
    ) -> float:
        """The metric of a network or an engine.

        Raises:
            UserError: There is no such metric, or what `Judge.scores` raises.
        """
        found = self.judge.scores(network, task=task, preprocessing=preprocessing, classes=classes)
        name = self.metric if self.metric in found else SHORT.get(self.metric, self.metric)
        if name not in found:
            raise unknown("metric", self.metric, found)
        return found[name]


def parse_gate(text: str) -> tuple[str, float]:
    """Metric and points of "miou=0.5".

    Raises:
        UserError: It is written otherwise.
    """
    metric, sign, points = text.partition("=")
    try:
        limit = float(points)
    except ValueError:
        limit = -1.0
    if not sign or not metric or not limit >= 0:
        raise UserError(f"--gate {text!r}: expected METRIC=POINTS, such as miou=0.5")
    return metric, limit
