"""Networks in engines, side by side: size, speed, memory, energy, metric, difference."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from espnetv2.data.preprocess import CONVENTIONS
from espnetv2.deploy.artefact import read_artefact
from espnetv2.deploy.engine_torch import use_kernels_of
from espnetv2.deploy.engines import Engine, open_artefact
from espnetv2.deploy.export import export
from espnetv2.deploy.fold import fold
from espnetv2.deploy.gate import Judge
from espnetv2.deploy.lively import make_lively
from espnetv2.deploy.subject import Settings
from espnetv2.deploy.targets import ENGINES, check_precision, computes_on, engine_kind
from espnetv2.deploy.verify import compare, drawn_pictures
from espnetv2.errors import UserError
from espnetv2.models.catalog import CATALOG, entry
from espnetv2.profiling.case import Case
from espnetv2.profiling.complexity import measure as count
from espnetv2.profiling.latency import Worker, begin_memory, take_turns
from espnetv2.profiling.row_counters import counted, energy_of
from espnetv2.weights.load import Loaded, load_network

RANDOM = "random weights"
PACKAGES = (
    *("espnetv2", "espnetv2-native", "torch", "triton"),
    *("onnxruntime", "openvino", "executorch", "ncnn"),
)
INSTRUCTIONS = (
    *("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8"),
    *("asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve"),
)


def network_of(model: str) -> Loaded:
    """A network with its weights, or with random ones, the same every time.

    Raises:
        UserError: There is no such network, or it does not take pictures.
    """
    full = f"{model}_x1_0"  # mobilenet_v2 is mobilenet_v2_x1_0
    model = full if model not in CATALOG and full in CATALOG else model
    if model not in CATALOG:
        loaded = load_network(model)
    else:
        row = entry(model)
        _no_language(model, row.task)
        torch.manual_seed(0)
        classes = row.num_classes - (row.task == "detection")
        loaded = Loaded(
            network=make_lively(row.build(num_classes=row.num_classes, in_channels=3)),
            name=model,
            task=row.task,
            classes=tuple(f"class {i}" for i in range(classes)),
            palette=None,
            preprocessing=CONVENTIONS["imagenet"].resized(row.input_size),
            source=RANDOM,
        )
    _no_language(model, loaded.task)
    return loaded


def _no_language(model: str, task: str) -> None:
    if task == "language":
        raise UserError(f"{model}: language models are not benchmarked; choose one for pictures")


def benchmark(
    cases: Iterable[Case],
    folder: Path,
    *,
    seconds: float = 10.0,
    energy: bool = False,
    counters: bool = False,
    judge: Judge | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measure every case, all of them in turn; gives the machine and a row for each.

    Every case has a process of its own, so that memory and thread pools are its own. Random
    weights have distinct norms and slopes.

    Args:
        folder: For artefacts, which stay there.
        seconds: For each case, about.
        energy: Whether to measure millijoules, one case after the other.
        counters: Whether to ask a GPU how busy it is, and its counters about every kernel.
        judge: Data set for the metric; cases with random weights have none.
        say: Told what is being done.

    Raises:
        UserError: A case cannot be built, or its packages lack.
    """
    rows = []
    workers: list[Worker] = []
    cases = [replace(one, device=computes_on(one.engine, one.device)) for one in cases]
    try:
        for case in cases:
            say(f"{case.model} in {case.engine}, {case.precision}, {case.form}")
            place, facts = _prepare(case, folder)
            worker = Worker(partial(_open, case, place), threads=case.threads)
            workers.append(worker)
            rows.append({**_row(case, facts), **worker.open()})
            if judge is not None and facts["source"] != RANDOM:
                rows[-1] |= {"metric": _judge(case, place, judge), "dataset": judge.dataset}
        say("measuring")
        take_turns(workers, seconds=seconds * len(workers))
        for case, row, worker in zip(cases, rows, workers, strict=True):
            timing = asdict(worker.timing())
            row |= {key: round(v, 4) if key != "calls" else v for key, v in timing.items()}
            row["images_per_second"] = round(1000 * row["batch"] / row["ms_median"], 2)
            if energy:
                row |= energy_of(worker, row)
            if counters:
                say(f"counters of {case.model} in {case.engine}, batch {case.batch}")
                row |= counted(worker, case, row)
    finally:
        for worker in workers:
            worker.close()
    return {"machine": machine(), "rows": rows}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "processor": _processor(),
        "instructions": _instructions(),
        "cores": os.cpu_count(),
        **({"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }


def _prepare(case: Case, folder: Path) -> tuple[Path | None, dict[str, Any]]:
    """The artefact that the case runs, if its engine needs one."""
    engine_kind(case.engine)
    target = ENGINES[case.engine].target
    loaded = network_of(case.model)
    size = _size(case, loaded)
    facts: dict[str, Any] = {"size": list(size), "task": loaded.task, "source": loaded.source}
    facts["macs"] = count(loaded.network, size).macs
    if target is None:
        tensors = [*loaded.network.parameters(), *loaded.network.buffers()]
        return None, facts | {"bytes": sum(one.numel() * one.element_size() for one in tensors)}
    check_precision(target, case.precision)
    name = f"{loaded.name}-{target}-{case.form}-{case.precision}-{case.batch}"
    settings = Settings(
        precision=case.precision,
        size=size,
        batch=case.batch,
        form=case.form,
        calibration=drawn_pictures(16, size) if case.precision == "int8" else (),
    )
    made = export(loaded, target, folder / name, settings)
    return made.folder, facts | {"bytes": made.bytes, "difference": made.difference}


def _size(case: Case, loaded: Loaded) -> tuple[int, int]:
    size = case.size or loaded.preprocessing.size
    if size is None:
        raise UserError(f"{case.model} takes any size; give --size HxW")
    return size


def open_case(case: Case) -> Callable[[], Any]:
    """A warm call of one of torch's own engines, nothing compared.

    Raises:
        UserError: The case needs an artefact, or cannot be built.
    """
    if ENGINES[case.engine].target is not None:
        raise UserError(f"{case.engine} runs artefacts, and on the CPU alone")
    loaded, batch = _ready(case)
    return _Call(_engine(case, None, loaded), batch)


def _open(case: Case, place: Path | None) -> Callable[[], Any]:
    """In the case's own process: the call to be timed."""
    if place is not None:
        spec = read_artefact(place).preprocess()
        assert spec.size is not None
        pictures = drawn_pictures(case.batch, spec.size)
        begin_memory()
        return _Call(open_artefact(place, threads=case.threads), spec.batch(pictures).numpy())
    difference = _difference(case)
    loaded, batch = _ready(case)
    begin_memory()
    call = _Call(_engine(case, None, loaded), batch)
    call.said["difference"] = difference
    return call


def _ready(case: Case) -> tuple[Loaded, np.ndarray]:
    loaded = network_of(case.model)
    size = _size(case, loaded)
    return loaded, loaded.preprocessing.resized(size).batch(
        drawn_pictures(case.batch, size)
    ).numpy()


def _difference(case: Case) -> float:
    """Of a torch engine to the train form."""
    loaded, batch = _ready(case)
    truth = engine_kind("torch")(loaded.network, threads=case.threads)
    axis = 2 if loaded.task == "detection" else 1
    found = _engine(case, None, loaded)
    return compare(truth.run, found.run, [(batch,)], class_axis=axis).difference


class _Call:
    """A batch that an engine runs again and again."""

    def __init__(self, engine: Engine, batch: np.ndarray) -> None:
        self.engine, self.batch = engine, batch
        self.said: dict[str, Any] = {"precision": engine.precision, "threads": engine.threads}

    def __call__(self) -> Any:
        return self.engine.run_batch(self.batch)


def _engine(case: Case, place: Path | None, loaded: Loaded) -> Engine:
    if place is not None:
        return open_artefact(place, threads=case.threads)
    network = fold(loaded.network) if case.form == "deploy" else loaded.network
    opened: Engine = engine_kind(case.engine)(
        network, precision=case.precision, threads=case.threads, device=case.device
    )
    use_kernels_of(opened, case.kernels, case.device)
    return opened


def _row(case: Case, facts: dict[str, Any]) -> dict[str, Any]:
    return {**asdict(case), **facts}


def _judge(case: Case, place: Path | None, judge: Judge) -> dict[str, float]:
    loaded = network_of(case.model)
    engine = _engine(case, place, loaded)
    spec = loaded.preprocessing
    if engine.artefact is not None:
        spec = spec.resized(_size(case, loaded))
    found = judge.scores(engine, task=loaded.task, preprocessing=spec, classes=loaded.classes)
    return {name: round(value, 4) for name, value in found.items()}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    return _of_cpuinfo("model name") or platform.processor()


def _instructions() -> list[str]:
    """Sets that decide what kernels a runtime chooses; virtual machines hide them in the name."""
    found = f"{_of_cpuinfo('flags')} {_of_cpuinfo('Features')}".split()  # of x86, of ARM
    return [one for one in INSTRUCTIONS if one in found]


def _of_cpuinfo(name: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    named = [line.partition(":")[2].strip() for line in lines if line.startswith(name)]
    return named[0] if named else ""
