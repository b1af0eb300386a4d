"""Large-scale prediction over Ray Data: a job on any number of cores or machines."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from espnetv2.errors import UserError
from espnetv2.extras import require
from espnetv2.predict.job import Job
from espnetv2.predict.parquet import Settings, count_errors, look_up, write_part
from espnetv2.weights.load import Loaded

TRIES = 3
"""How often a part is begun in one run before it is given up."""


def run_job(
    job: Job,
    loaded: Loaded,
    settings: Settings,
    *,
    device: str = "cpu",
    batch_size: int = 1,
    workers: int | None = None,
    advance: Callable[[int], None] | None = None,
) -> dict[str, int]:
    """Do what is not yet done of a job.

    Runs on the Ray cluster of RAY_ADDRESS ("auto" for that of `ray start` on this machine), else
    on this machine alone: never on a cluster that merely happens to be there. On a cluster every
    node needs espnetv2, and inputs and outputs under the same paths.

    Args:
        job: From `open_job`, with the same `loaded` and `settings`.
        device: "cuda" lets Ray hand out the GPUs.
        batch_size: Pictures of equal input size that go through the network together, at most.
        workers: Actors, each with a network and one thread; the cores (or GPUs) by default.
        advance: Told of every finished part how many pictures it holds.

    Returns:
        "pictures" and "errors" of the whole job, "looked_at" by this run.

    Raises:
        UserError: Ray is missing or cannot be reached, too few cores, a worker failed.
    """
    _remove(job, ".tries")  # of a run before
    todo = job.open_parts()
    if todo:
        ray = require("ray", extra="ray")
        require("ray.data", extra="ray")
        with _connected(ray, workers):
            resources = _resources(ray, device, workers, len(todo))
            try:
                _work(ray, job, todo, (loaded, settings, device, batch_size), resources, advance)
            except ray.exceptions.RayError as error:
                reason = str(error).strip().splitlines()[-1]
                raise UserError(f"Ray failed ({reason}); the same command goes on") from error
    if left := job.open_parts():
        raise UserError(f"{job.part(left[0])}: was not written; the same command goes on")
    _remove(job, ".parquet")  # of workers that were killed
    return {
        "pictures": len(job.paths),
        "errors": sum(count_errors(job.part(number)) for number in range(len(job))),
        "looked_at": sum(len(job.block(number)) for number in todo),
    }


def _remove(job: Job, ending: str) -> None:
    for leftover in job.out.glob(f".part-*{ending}"):
        leftover.unlink(missing_ok=True)


class _Worker:
    """One actor: a network that turns blocks into parts."""

    def __init__(
        self, out: Path, loaded: Loaded, settings: Settings, device: str, batch_size: int
    ) -> None:
        torch.set_num_threads(1)
        self.predictor = settings.predictor(loaded, device=device)
        self.out, self.settings, self.batch_size = out, settings, batch_size

    def __call__(self, blocks: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        failures = [
            self._write(str(file), [os.fsdecode(path) for path in bytes(joined).split(b"\0")])
            for file, joined in zip(blocks["file"], blocks["paths"], strict=True)
        ]
        return {"pictures": blocks["pictures"], "failure": np.array(failures)}

    def _write(self, file: str, paths: list[str]) -> str:
        """One part; answers "", or why not: what is raised here, Ray tells at great length."""
        try:
            tries = _one_more_try(self.out / f".{file}.tries")
            rows = look_up(self.predictor, paths, self.settings, batch_size=self.batch_size)
            write_part(rows, self.predictor.task, self.out / file)
            tries.unlink(missing_ok=True)
        except UserError as error:
            return str(error)
        except Exception as error:
            return f"{file}: {type(error).__name__}, {' '.join(str(error).split())}"
        return ""


def _one_more_try(tries: Path) -> Path:
    """Count the attempts at a part: Ray itself would go on for ever with one that kills."""
    with tries.open("ab") as file:
        file.write(b".")
    if tries.stat().st_size > TRIES:
        raise UserError(
            f"{tries.with_suffix('').name[1:]}: its worker was killed {TRIES} times; ask for "
            "fewer workers, or leave out the picture among its inputs that is too large"
        )
    return tries


def _work(
    ray: Any,
    job: Job,
    todo: Sequence[int],
    how: tuple[Loaded, Settings, str, int],
    resources: dict[str, Any],
    advance: Callable[[int], None] | None,
) -> None:
    rows = [
        {
            "file": job.part(number).name,
            "paths": b"\0".join(map(os.fsencode, job.block(number))),
            "pictures": len(job.block(number)),
        }
        for number in todo
    ]
    workers = resources.pop("workers")
    parts = ray.data.from_items(rows, override_num_blocks=min(len(rows), 4096)).map_batches(
        _Worker,
        batch_size=1,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(size=workers),
        fn_constructor_args=(job.out.absolute(), *how),
        **resources,
    )
    for row in parts.iter_rows():
        if row["failure"]:
            raise UserError(f"a worker failed ({row['failure']}); the same command goes on")
        if advance is not None:
            advance(int(row["pictures"]))


@contextmanager
def _connected(ray: Any, workers: int | None) -> Iterator[None]:
    """Ray for as long as it is needed; one that runs already stays."""
    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS") or "local"
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and "/" not in host:  # Ray itself would wait for minutes
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as error:
            raise UserError(f"no Ray answers at {address}; check RAY_ADDRESS") from error
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its core warns of Ray Data's ways
    options: dict[str, Any] = {"address": address, "log_to_driver": False}
    if address == "local":
        options["num_cpus"] = max(workers or 1, os.cpu_count() or 1)
        options["object_store_memory"] = 2**28  # it carries paths only
        options["_node_ip_address"] = "127.0.0.1"
    try:
        with _no_greeting():
            ray.init(**options, logging_level=logging.ERROR, include_dashboard=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"Ray {address} cannot be used ({reason}); check RAY_ADDRESS, and RAY_AUTH_MODE if "
            "the cluster asks for a token"
        ) from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _no_greeting() -> Iterator[None]:
    """Stderr closed for a moment: Ray's core writes there past all logging."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def _resources(ray: Any, device: str, workers: int | None, parts: int) -> dict[str, Any]:
    """What an actor asks for, and how many there shall be."""
    there = ray.cluster_resources()
    cores, gpus = int(there.get("CPU", 0)), int(there.get("GPU", 0))
    if device.startswith("cuda:"):
        raise UserError(f"--device {device}: Ray chooses among the GPUs; give cuda")
    on_gpu = device == "cuda"
    if on_gpu and not gpus:
        raise UserError("--device cuda: Ray finds no GPU; use cpu")
    wanted = workers or (gpus if on_gpu else cores)
    if wanted > cores:
        raise UserError(f"--workers {wanted}: the cluster has {cores} cores; ask for fewer")
    count = max(1, min(wanted, parts))
    share = min(1.0, gpus / count) if on_gpu else 0
    return {"workers": count, "num_cpus": 1, "num_gpus": share}
