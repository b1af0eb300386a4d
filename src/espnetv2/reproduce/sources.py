"""Where values come from that are not counted: data, committed results, committed measurements."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from espnetv2.errors import UserError
from espnetv2.reproduce.row import How, Row

EVALUATIONS = "results/reproduce_evaluations.json"
"""Scores of evaluations that were run with data, by command."""


@dataclass(frozen=True)
class Evaluation:
    """Weights on a data set under a protocol: what `espnetv2 eval` runs.

    Attributes:
        folder: Below the folder of data sets.
        batch: Pictures per forward pass.
        whole: Pictures of the whole split, where `folder` may hold fewer; 0 where it is whole.
    """

    weights: str
    dataset: str
    folder: str
    split: str
    protocols: tuple[str, ...]
    squashed: bool = False
    batch: int = 1
    whole: int = 0

    @property
    def command(self) -> str:
        """For a reader to type, with DATA for the folder of data sets."""
        words = f"espnetv2 eval {self.weights} --dataset {self.dataset} --data DATA/{self.folder}"
        words += f" --split {self.split}"
        words += "".join(f" --protocol {name}" for name in self.protocols)
        return words + (" --squashed" if self.squashed else "")


@dataclass
class Sources:
    """What a run may use.

    Attributes:
        data: Folder of data sets; None where the user gave none.
        project: Folder with results/ and benchmarks/results/; None outside a clone.
        say: Told what takes long.
        judged: Evaluations of this run, by command.
        failed: Those that could not be run.
    """

    data: Path | None = None
    project: Path | None = None
    say: Callable[[str], None] = lambda line: None
    judged: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)

    def recorded(self, evidence: str) -> Any:
        """The value at `FILE#key/key` of a committed file; None where the file is not at hand."""
        path, _, keys = evidence.partition("#")
        document = None if self.project is None else _opened(self.project / path)
        for key in keys.split("/") if keys else ():
            if document is None:
                return None
            document = document[int(key)] if isinstance(document, list) else document.get(key)
        return document

    def scored(self, evaluation: Evaluation) -> dict[str, Any] | None:
        """Metrics by protocol: judged now where data and weights are at hand, else as recorded.

        Returns:
            {"metrics": {protocol: {...}}, "per_class": {protocol: {...}}, "pictures": n}, or None
            where there is no record either.
        """
        command = evaluation.command
        if command not in self.judged and command not in self.failed:
            self._try(evaluation)
        if command in self.judged:
            return self.judged[command]
        record = self.recorded(EVALUATIONS)
        return None if record is None else record.get(command)

    def _try(self, evaluation: Evaluation) -> None:
        if self.data is None or not (self.data / evaluation.folder).is_dir():
            return
        self.say(f"judging {evaluation.weights} on {evaluation.folder}")
        try:
            self.judged[evaluation.command] = _judge(evaluation, self.data)
        except UserError as error:  # no weights, or a folder that is not the data set
            self.failed.add(evaluation.command)
            self.say(str(error))

    def committed(self, row: Row) -> Row:
        """The row with the value that its evidence holds: of a run, or of a measurement."""
        value = self.recorded(row.evidence)
        if value is None:
            return replace(row, note=_joined(row.note, "the file is in the repository, not here"))
        return replace(row, ours=value)

    def scores(
        self,
        what: str,
        printed: str,
        evaluation: Evaluation,
        metric: str,
        *,
        protocol: str = "",
        how: How = "official weights on real data",
        note: str = "",
        data: str = "",
    ) -> Row:
        """The row of an evaluation, or what it needs.

        Args:
            metric: Such as "mean_iou".
            data: What the data set is called, for the reader who lacks it.
        """
        found = self.scored(evaluation)
        if found is None:
            return needs(what, printed, data, evaluation.command, note=note)
        if evaluation.whole:
            note = _joined(note, f"{found['pictures']} of {evaluation.whole} pictures")
        return Row(
            what,
            printed,
            found["metrics"][protocol or evaluation.protocols[0]][metric],
            how,
            f"{EVALUATIONS}#{evaluation.command}",
            note=note,
            comparable=not evaluation.whole,
        )


def project() -> Path | None:
    """The clone that this package runs from, or None where it was installed elsewhere."""
    root = Path(__file__).resolve().parents[3]
    return root if (root / "results").is_dir() and (root / "benchmarks").is_dir() else None


def needs(what: str, printed: str, data: str, command: str, *, note: str = "") -> Row:
    """The row of a value that nobody has computed here, with the command that would."""
    return Row(what, printed, None, "needs data", f"{data}: {command}", note=note)


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)


@cache
def _opened(path: Path) -> Any:
    if not path.is_file():
        return None
    return json.loads(path.read_text(encoding="utf-8"))


def _judge(evaluation: Evaluation, data: Path) -> dict[str, Any]:
    from espnetv2.data.evaluation_sets import open_split
    from espnetv2.predict.predictor import load
    from espnetv2.tasks.evaluate import evaluate, predict_for

    predictor = load(evaluation.weights)
    samples = open_split(
        evaluation.dataset,
        data / evaluation.folder,
        evaluation.split,
        predictor.classes,
        squashed=evaluation.squashed,
    )
    found = evaluate(
        predict_for(
            predictor.model,
            predictor.task,
            predictor.preprocessing,
            predictor.classes,
            protocol=evaluation.protocols[0],
            device=predictor.device,
        ),
        samples,
        evaluation.protocols,
        batch_size=evaluation.batch,
    )
    plain = {name: scores.to_json() for name, scores in found.items()}
    return {
        "pictures": next(iter(plain.values()))["pictures"],
        "metrics": {name: document["metrics"] for name, document in plain.items()},
        "per_class": {
            name: {
                label: score["values"]
                for label, score in document["per_class"].items()
                if score["averaged"]
            }
            for name, document in plain.items()
        },
    }
