"""Weights or artefact, and the name of an engine: a network that runs in it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from espnetv2.cache import cache_folder
from espnetv2.data.preprocess import Preprocessing
from espnetv2.deploy.artefact import Artefact, is_artefact, read_artefact
from espnetv2.deploy.engines import Engine, open_artefact
from espnetv2.deploy.fold import fold
from espnetv2.deploy.native_program import runs
from espnetv2.deploy.targets import (
    ENGINES,
    TARGETS,
    check_precision,
    computes_on,
    engine_kind,
)
from espnetv2.errors import UserError
from espnetv2.models.catalog import Task
from espnetv2.weights.load import Loaded, load_network

if TYPE_CHECKING:
    from espnetv2.deploy.subject import Settings


def load_engine(
    name_or_file: str | Path,
    *,
    engine: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    size: tuple[int, int] | None = None,
    device: str = "cpu",
) -> Loaded:
    """A network in an engine, ready for whatever takes networks.

    Weights are exported for the engine once and kept in the cache, for sizes that stay free where
    the engine can do that. int8 needs pictures to find its ranges: use `espnetv2 export`.

    Args:
        name_or_file: A published name, a weights file, or an artefact of `espnetv2 export`.
        engine: Key of `targets.ENGINES`; an artefact's own by default, else the native one for a
            precision that it has, on a CPU where it is built, else "torch".
        precision: To compute in; an artefact has its own.
        threads: Of the CPU.
        size: (height, width) of the input.
        device: Where to compute; torch's own engines alone leave the CPU.

    Raises:
        UserError: Name, file, engine and precision do not fit each other.
    """
    if is_artefact(name_or_file):
        if device != "cpu":
            raise UserError(f"artefacts run on the CPU, not on {device}; leave the device out")
        return _of_artefact(name_or_file, engine=engine, precision=precision, threads=threads)
    loaded = load_network(name_or_file)
    if engine is None:
        native = device == "cpu" and native_is_built() and runs(loaded.network)
        engine = "native" if native and precision in ("fp32", "bf16") else "torch"
    kind, device = engine_kind(engine), computes_on(engine, device)
    if engine == "torch" and precision in (None, "fp32") and threads is None and device == "cpu":
        return loaded
    opened: Engine
    if engine == "native":
        check_precision(engine, precision or "fp32")
        opened = kind.of(
            fold(loaded.network),
            precision=precision or "fp32",
            threads=threads or torch.get_num_threads(),
        )
    elif ENGINES[engine].target is None:
        form = fold(loaded.network)
        opened = kind(form, precision=precision or "fp32", threads=threads, device=device)
    else:
        place = _cached(loaded, engine, precision=precision or "fp32", size=size)
        opened = open_artefact(place, threads=threads)
    opened.smallest_prior = getattr(loaded.network, "smallest_prior", opened.smallest_prior)
    return _with_engine(loaded, opened)


def native_is_built() -> bool:
    """Whether the native engine is installed here."""
    return find_spec("espnetv2_native") is not None


def fastest(
    loaded: Loaded,
    *,
    threads: int | None = None,
    device: str = "cpu",
    size: tuple[int, int] | None = None,
) -> Loaded:
    """The same in the engine that is fastest there.

    On a CPU that is the native engine where it is built and runs the network. On an NVIDIA GPU it
    is a CUDA graph, if all inputs have one size. Else torch.

    Args:
        threads: Of the CPU.
        device: Where to compute.
        size: (height, width) of all inputs; else the one that came with the weights.
    """
    if device.startswith("cuda") and torch.cuda.is_available():
        if size is None and loaded.preprocessing.size is None:
            return loaded
        graph: Engine = engine_kind("cudagraph")(fold(loaded.network), device=device)
        return _with_engine(loaded, graph)
    if device != "cpu" or not native_is_built() or not runs(loaded.network):
        return loaded
    kind = engine_kind("native")
    engine: Engine = kind.of(fold(loaded.network), threads=threads or torch.get_num_threads())
    engine.smallest_prior = getattr(loaded.network, "smallest_prior", engine.smallest_prior)
    return _with_engine(loaded, engine)


def _of_artefact(
    place: str | Path, *, engine: str | None, precision: str | None, threads: int | None
) -> Loaded:
    artefact = read_artefact(place)
    own = TARGETS[artefact.target].engine if artefact.target in TARGETS else None
    if engine is not None and engine != own:
        raise UserError(
            f"{place} is for {own or 'another machine'}, not {engine}; leave --engine out"
        )
    if precision is not None and precision != artefact.precision:
        raise UserError(f"{place} computes in {artefact.precision}; export it in {precision}")
    if artefact.gives != "raw":
        raise UserError(
            f"{place} decodes its outputs itself, for programs without this package; export it "
            "with --output raw to use it here"
        )
    return Loaded(
        network=cast(nn.Module, open_artefact(place, threads=threads)),
        name=artefact.model,
        task=cast(Task, artefact.task),
        classes=artefact.classes,
        palette=artefact.palette,
        preprocessing=_input_of(artefact),
        source=artefact.source,
        options=dict(artefact.options),
        multi_label=artefact.multi_label,
    )


def _input_of(artefact: Artefact) -> Preprocessing:
    """What is left to do before the graph: all, or resizing alone."""
    spec = artefact.preprocess()
    return spec.pixels_only() if artefact.takes == "pixels" else spec


def _with_engine(loaded: Loaded, engine: Engine) -> Loaded:
    spec = loaded.preprocessing
    if engine.artefact is not None and engine.artefact.size is not None:
        spec = spec.resized(engine.artefact.size)
    return replace(loaded, network=cast(nn.Module, engine), preprocessing=spec)


def _cached(loaded: Loaded, engine: str, *, precision: str, size: tuple[int, int] | None) -> Path:
    """The folder of the artefact, which is made if it is not there."""
    from espnetv2.deploy.export import export  # seconds to import, with all that judges it
    from espnetv2.deploy.subject import Settings

    name = ENGINES[engine].target
    assert name is not None
    row = TARGETS[name]
    size = size or loaded.preprocessing.size
    settings = Settings(precision=precision, size=size, dynamic=size is None and row.dynamic)
    if precision == "int8":
        raise UserError(
            f"int8 needs pictures to find its ranges: espnetv2 export ... --to {name} "
            "--precision int8 --calib DIR, and give the artefact instead of the weights"
        )
    digest = hashlib.sha256()
    for key, value in sorted(_plain(loaded, settings).items()):
        digest.update(f"{key}={value};".encode())
    for key, tensor in sorted(loaded.network.state_dict().items()):
        digest.update(key.encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    place = cache_folder() / "engines" / f"{loaded.name}-{name}-{digest.hexdigest()[:16]}"
    if not is_artefact(place):
        export(loaded, name, place, settings)
    return place


def _plain(loaded: Loaded, settings: Settings) -> dict[str, Any]:
    """What decides an artefact, beside the weights."""
    packages = {name: version(name) for name in ("espnetv2", "torch")}
    return {
        "model": loaded.name,
        "options": loaded.options,
        "preprocessing": loaded.preprocessing.to_json(),
        "precision": settings.precision,
        "size": settings.size,
        "dynamic": settings.dynamic,
        **packages,
    }
