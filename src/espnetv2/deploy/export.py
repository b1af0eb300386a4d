"""From weights to an artefact: fold, convert, compare with the train form, pass the gate, write."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from espnetv2.data.preprocess import Preprocessing
from espnetv2.deploy.artefact import Artefact, hashes_of, size_of, write_artefact
from espnetv2.deploy.conversion import Converted, Job
from espnetv2.deploy.engines import Engine, open_artefact
from espnetv2.deploy.gate import Gate
from espnetv2.deploy.subject import Pictures, Settings, Words, check_words
from espnetv2.deploy.targets import check_precision, converter, target
from espnetv2.errors import UserError
from espnetv2.weights.load import Loaded

CALIBRATION_PICTURES = 64
LARGEST_DIFFERENCE = {"fp32": 1e-3, "fp16": 0.1, "bf16": 0.3}
"""Relative; an artefact that differs more is broken and not written. int8 is for the gate."""

log = logging.getLogger("espnetv2")


def export(loaded: Loaded, target_name: str, folder: Path, settings: Settings) -> Artefact:
    """Write one artefact into `folder`, whole or not at all.

    What was in the folder before is replaced when the new artefact has passed.

    Raises:
        UserError: The target, precision or size does not fit the network, packages lack, the
            artefact differs from the network, or the gate refuses it.
    """
    start = time.perf_counter()
    precision = settings.precision or target(target_name).precisions[0]
    check_precision(target_name, precision)
    module = converter(target_name)
    _check(loaded, target_name, precision, settings)
    plan = _Plan(loaded, target_name, replace(settings, precision=precision), module)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise UserError(f"cannot write {folder} ({error.strerror or error})") from error
    try:
        artefact = plan.make(scratch)
        artefact = replace(artefact, seconds=round(time.perf_counter() - start, 2))
        write_artefact(artefact)
        if folder.exists():
            _remove(folder)
        scratch.chmod(0o755)
        scratch.replace(folder)
    except OSError as error:
        raise UserError(f"cannot write {folder} ({error.strerror or error})") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return replace(artefact, folder=folder)


class _Plan:
    """One export, possibly tried several times with more layers in float."""

    def __init__(self, loaded: Loaded, target_name: str, settings: Settings, module: Any) -> None:
        self.loaded, self.name, self.settings, self.module = loaded, target_name, settings, module
        self.row = target(target_name)
        subject = Words if loaded.task == "language" else Pictures
        self.subject: Pictures | Words = subject(loaded, settings, self.row)

    def make(self, folder: Path) -> Artefact:
        """Convert until the gate is content."""
        job = self.subject.job()
        artefact, engine = self._convert(job, folder)
        gate = self.settings.gate
        if gate is None or engine is None:
            return self._compared(artefact, engine)
        before = self._score(gate, self.loaded.network)
        ranking: list[str] = []
        while True:
            after = self._gated(gate, job, engine)
            if before - after <= gate.points:
                break
            lost = f"{gate.metric} falls from {before:.2f} to {after:.2f}"
            if self.settings.precision != "int8":
                raise UserError(
                    f"{self.name} in {self.settings.precision}: {lost}, more than "
                    f"{gate.points:g} points; not written"
                )
            if not ranking:
                with tempfile.TemporaryDirectory() as place:
                    ranking = self.module.rank_layers(job, Path(place))
            count = max(1, 2 * len(job.float_layers))
            if count > len(ranking) // 2:
                raise UserError(
                    f"{self.name} in int8: {lost}, even with {len(job.float_layers)} of "
                    f"{len(ranking)} layers in float; not written. The worst layers: "
                    f"{', '.join(ranking[:5])}"
                )
            log.info("%s: %s; leaving %d layers in float", self.name, lost, count)
            job = replace(job, float_layers=tuple(ranking[:count]))
            artefact, engine = self._convert(job, folder)
        stated = {"metric": gate.metric, "points": gate.points, "before": before, "after": after}
        stated |= {**asdict(gate.judge), "data": str(gate.judge.data)}
        return self._compared(replace(artefact, gate=stated), engine)

    def _gated(self, gate: Gate, job: Job, engine: Engine | None) -> float:
        if self.settings.gives == "raw" and self.settings.takes == "input":
            return self._score(gate, engine)
        # protocols need raw outputs: a twin that differs in its first and last step alone
        plain = self.subject.job(gives="raw", takes="input")
        with tempfile.TemporaryDirectory() as place:
            twin = self._convert(replace(plain, float_layers=job.float_layers), Path(place))[1]
            return self._score(gate, twin)

    def _score(self, gate: Gate, network: Any) -> float:
        spec = Preprocessing.from_json(self.subject.preprocessing())
        return gate.score(
            network, task=self.loaded.task, preprocessing=spec, classes=self.loaded.classes
        )

    def _convert(self, job: Job, folder: Path) -> tuple[Artefact, Engine | None]:
        for old in folder.iterdir():
            _remove(old)
        done: Converted = self.module.convert(job, folder)
        artefact = Artefact(
            target=self.name,
            folder=folder,
            files=done.files,
            model=self.loaded.name,
            task=self.loaded.task,
            classes=self.loaded.classes,
            palette=self.loaded.palette,
            preprocessing=self.subject.preprocessing(),
            options=self.loaded.options,
            multi_label=self.loaded.multi_label,
            precision=job.precision,
            takes=self.settings.takes,
            gives=self.settings.gives,
            inputs=done.inputs,
            outputs=done.outputs,
            dynamic=job.dynamic,
            float_layers=job.float_layers,
            versions=done.versions | {"torch": torch.__version__},
            opset=done.opset,
            bytes=size_of(folder, done.files),
            sha256=hashes_of(folder, done.files),
            source=self.loaded.source,
        )
        write_artefact(artefact)
        return artefact, None if self.row.engine is None else open_artefact(folder)

    def _compared(self, artefact: Artefact, engine: Engine | None) -> Artefact:
        if engine is None:
            return replace(artefact, verified=f"no {self.name} runtime on this machine")
        found = self.subject.likeness(engine)
        limit = LARGEST_DIFFERENCE.get(artefact.precision, float("inf"))
        if not found.difference <= limit:
            raise UserError(
                f"{self.name} in {artefact.precision} differs from the network by "
                f"{found.difference:.1e} of its largest output, more than {limit:g}; not written"
            )
        return replace(
            artefact,
            computes_in=engine.precision,
            difference=found.difference,
            agreement=found.agreement,
            verified=f"{found.inputs} {self.subject.seen} in {engine.name}",
        )


def _check(loaded: Loaded, name: str, precision: str, settings: Settings) -> None:
    if loaded.task == "language":
        check_words(loaded, precision, settings)
        return
    if settings.dynamic and not target(name).dynamic:
        raise UserError(f"{name} takes fixed sizes only; give --size HxW instead of --dynamic")
    if settings.size is None and loaded.preprocessing.size is None and not settings.dynamic:
        raise UserError(f"{loaded.name} takes any size; give --size HxW, or --dynamic")
    if precision == "int8" and not settings.calibration:
        raise UserError(
            "int8 needs pictures like the device's to find its ranges; give --calib DIR"
        )
    if settings.gate is not None and target(name).engine is None:
        raise UserError(f"--gate: a {name} artefact cannot be run on this machine; leave it out")


def _remove(place: Path) -> None:
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink()
