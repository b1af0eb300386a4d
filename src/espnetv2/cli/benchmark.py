"""`espnetv2 benchmark`: networks in engines, side by side."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from espnetv2.cli.notice import say_kernels
from espnetv2.cli.size import parse_size
from espnetv2.errors import UserError

if TYPE_CHECKING:
    from espnetv2.profiling.case import Case


def benchmark(
    models: Annotated[
        list[str],
        typer.Argument(help="Published names, weights files, or names with random weights."),
    ],
    engine: Annotated[
        str, typer.Option(help="torch, compile, cudagraph, onnxruntime, ...; several by commas.")
    ] = "torch",
    precision: Annotated[str, typer.Option(help="fp32, bf16, fp16, int8; several.")] = "fp32",
    form: Annotated[str, typer.Option(help="deploy, plain (the train form), or both.")] = "deploy",
    size: Annotated[
        str | None, typer.Option(metavar="HxW", help="Input size; the networks' own by default.")
    ] = None,
    batch: Annotated[str, typer.Option(help="Pictures of a call; several by commas.")] = "1",
    threads: Annotated[str, typer.Option(help="CPU threads; several by commas.")] = "1",
    device: Annotated[
        str, typer.Option(help="cpu, cuda, cuda:1; torch, compile and cudagraph alone leave cpu.")
    ] = "cpu",
    kernels: Annotated[
        str, typer.Option(help="Of EESP units in torch's engines: reference, fused or auto.")
    ] = "auto",
    against: Annotated[
        str | None, typer.Option(help="Other networks to measure beside; several by commas.")
    ] = None,
    energy: Annotated[bool, typer.Option(help="Millijoules an image, where counted.")] = False,
    counters: Annotated[
        bool, typer.Option(help="A GPU's load and clocks, and what its kernels make of it.")
    ] = False,
    eval_data: Annotated[Path | None, typer.Option(help="Folder to judge the metric on.")] = None,
    eval_dataset: Annotated[
        str | None, typer.Option(help="camvid, voc, imagefolder, ...; as for `espnetv2 eval`.")
    ] = None,
    eval_split: Annotated[str, typer.Option(help="Of that data set.")] = "val",
    eval_limit: Annotated[int | None, typer.Option(min=1, help="Only its first pictures.")] = None,
    seconds: Annotated[float, typer.Option(min=0, help="Of measuring, for each row.")] = 10.0,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for benchmark.json, .md, the plots and the artefacts."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead of a table.")
    ] = False,
) -> None:
    """Measure networks in engines: latency, memory, size, energy, counters, metric, difference.

    Every row has a process of its own and all rows take turns, so that a busy machine slows all
    of them. Networks without weights get random ones, with distinct norms and slopes.
    """
    if (eval_data is None) != (eval_dataset is None):
        raise UserError("--eval-data DIR and --eval-dataset NAME go together; give both")
    shape = None if size is None else parse_size(size)
    names = [*models, *_list(against or "")]
    cases = _cases(names, engine, form, precision, shape, _numbers(batch), _numbers(threads))
    cases = [replace(case, device=device, kernels=kernels) for case in cases]
    say_kernels(kernels, "cuda" if "cudagraph" in _list(engine) else device)

    from espnetv2.deploy.gate import Judge
    from espnetv2.profiling.benchmark import benchmark as measure
    from espnetv2.profiling.table import markdown, plot, plot_batches, plot_energy

    judge = None
    if eval_data is not None and eval_dataset is not None:
        judge = Judge(eval_dataset, eval_data, eval_split, eval_limit)

    def say(line: str) -> None:
        sys.stderr.write(f"{line}\n")

    with tempfile.TemporaryDirectory() as scratch:
        document = measure(
            cases,
            Path(scratch) if out is None else out / "artefacts",
            seconds=seconds,
            energy=energy,
            counters=counters,
            judge=judge,
            say=say,
        )
    document = {"command": "espnetv2 " + " ".join(sys.argv[1:]), **document}
    if out is not None:
        _write(out, document, markdown(document))
        plot(document["rows"], out / "benchmark.png")
        plot_energy(document["rows"], out / "energy.png")
        plot_batches(document["rows"], out / "batches.png")
    print(json.dumps(document, indent=1) if as_json else markdown(document), end="")


def _cases(
    names: list[str],
    engines: str,
    forms: str,
    precisions: str,
    size: tuple[int, int] | None,
    batches: list[int],
    threads: list[int],
) -> list[Case]:
    from espnetv2.deploy.targets import engine_kind
    from espnetv2.profiling.case import Case

    kinds = ["plain", "deploy"] if forms == "both" else _list(forms)
    if not kinds or not set(kinds) <= {"plain", "deploy"}:
        raise UserError(f"form {forms!r} is unknown; choose deploy, plain or both")
    for name in _list(engines):  # said before anything is built
        engine_kind(name)
    return [
        Case(name, engine, form, precision, size, count, width)
        for name, engine, form, precision, count, width in product(
            names, _list(engines), kinds, _list(precisions), batches, threads
        )
    ]


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _numbers(text: str) -> list[int]:
    parts = _list(text)
    if not parts or not all(part.isdecimal() and int(part) for part in parts):
        raise UserError(f"{text!r}: expected whole numbers from 1, such as 1,2")
    return [int(part) for part in parts]


def _write(out: Path, document: dict[str, Any], table: str) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "benchmark.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        (out / "benchmark.md").write_text(table, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {out} ({error.strerror}); choose another --out") from error
