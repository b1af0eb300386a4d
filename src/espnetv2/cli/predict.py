"""`espnetv2 predict`: look at pictures, folders, videos and cameras."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from espnetv2.cli.notice import say_engine, say_kernels
from espnetv2.cli.size import parse_size
from espnetv2.errors import UserError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from espnetv2.predict.media import Source
    from espnetv2.predict.pipeline import Clock, Tiles
    from espnetv2.predict.predictor import Predictor


class Enlarge(str, Enum):
    """How a segmentation reaches the picture's size."""

    bilinear = "bilinear"
    nearest = "nearest"


class Cluster(str, Enum):
    """What spreads the work over many cores or machines."""

    ray = "ray"


def predict(
    model: Annotated[str, typer.Argument(help="A published name, a weights file or an artefact.")],
    inputs: Annotated[
        list[str],
        typer.Argument(
            help='Pictures, folders, patterns ("*.jpg"), @list.txt, videos, a camera ("0").'
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("predictions"),
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")] = "cpu",
    engine: Annotated[
        str | None,
        typer.Option(help="torch, compile, cudagraph, onnxruntime, ...; see docs/deploy."),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="Of the engine: fp32, bf16 or fp16.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    kernels: Annotated[str, typer.Option(help="Of EESP units: reference, fused or auto.")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures per forward pass.")] = 1,
    size: Annotated[
        str | None, typer.Option(metavar="HxW", help="Input size; the weights' own by default.")
    ] = None,
    tile: Annotated[
        int | None, typer.Option(min=1, help="Segment in tiles of N pixels, at full resolution.")
    ] = None,
    overlap: Annotated[
        int | None, typer.Option(min=0, help="Pixels that tiles share; a quarter by default.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Classes named in a classification.")] = 5,
    score: Annotated[float, typer.Option(min=0, max=1, help="Least score of a box.")] = 0.3,
    opacity: Annotated[
        float, typer.Option(min=0, max=1, help="Of a segmentation's colours.")
    ] = 0.5,
    enlarge: Annotated[
        Enlarge, typer.Option(help="Enlarge logits (bilinear) or labels (nearest).")
    ] = Enlarge.bilinear,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first pictures, and frames of a video.")
    ] = None,
    engine_cluster: Annotated[
        Cluster | None,
        typer.Option(help="Pictures to Parquet files in --out, restartable, over Ray Data."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Of the cluster; its cores, or GPUs, by default.")
    ] = None,
    part_size: Annotated[
        int | None, typer.Option(min=1, help="Of the cluster: pictures of a Parquet file; 256.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead of lines.")
    ] = False,
) -> None:
    """Look at pictures and videos; write drawings, masks, boxes and JSON files."""
    shape = None if size is None else parse_size(size)
    if overlap is not None and tile is None:
        raise UserError("--overlap needs --tile; give both")
    if engine_cluster is not None:
        given = (engine, precision, threads)
        if any(one is not None for one in given) or kernels != "auto":
            raise UserError(
                "--engine-cluster runs torch; leave --engine, --precision, --threads, --kernels out"
            )
        from espnetv2.cli.predict_cluster import predict_on_ray

        cut = None if tile is None else (tile, tile // 4 if overlap is None else overlap)
        decided = {"size": shape, "enlarge": enlarge.value, "top": top, "score": score}
        predict_on_ray(
            model,
            inputs,
            out,
            decided,
            tiles=cut,
            limit=limit,
            device=device,
            batch_size=batch_size,
            workers=workers,
            part_size=part_size,
            as_json=as_json,
        )
        return
    if workers is not None or part_size is not None:
        raise UserError("--workers and --part-size need --engine-cluster ray; add it")

    from espnetv2.predict.media import find_sources
    from espnetv2.predict.output import check_folder

    check_folder(out)
    sources = find_sources(inputs, out=out)

    from espnetv2.predict.pipeline import Tiles
    from espnetv2.predict.predictor import load
    from espnetv2.predict.tiling import rounded

    tiles = None
    if tile is not None:
        tiles = Tiles(*rounded(tile, tile // 4 if overlap is None else overlap))
    say_engine(engine, device)
    say_kernels(kernels, device)
    predictor = load(
        model,
        device=device,
        size=shape,
        enlarge=enlarge.value,
        top=top,
        score=score,
        engine=engine,
        precision=precision,
        threads=threads,
        kernels=kernels,
    )
    if tiles is not None and predictor.task != "segmentation":
        raise UserError(f"--tile is for segmentation; {predictor.name} does {predictor.task}")
    run = _Run(predictor, out, batch_size=batch_size, tiles=tiles, limit=limit, opacity=opacity)
    with progress_bar() as progress:
        run.work(sources, progress, lines=not as_json)
    if len(sources) == 1 and run.errors:
        raise UserError(run.errors[0]["message"])
    summary = run.summary()
    if as_json:
        print(json.dumps(summary, indent=2))
    else:
        print(_sentence(summary))
    if run.errors:
        raise typer.Exit(2)


@dataclass
class _Run:
    """One call of the command: how it looks, and what came of it."""

    predictor: Predictor
    out: Path
    batch_size: int
    tiles: Tiles | None
    limit: int | None
    opacity: float
    results: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, str]] = field(default_factory=list)
    seconds: float = 0.0
    clock: Clock | None = None

    def work(self, sources: list[Source], progress: Progress, *, lines: bool) -> None:
        """Go through the sources; one that cannot be read is reported and left out."""
        from espnetv2.predict.pipeline import Clock

        self.clock = Clock()
        alone = len(sources) == 1
        start = time.perf_counter()
        pictures = [source for source in sources if source.kind == "picture"]
        for step in (self._pictures(pictures, progress), self._clips(sources, progress)):
            for place, outcome in step:
                if isinstance(outcome, UserError):
                    self.errors.append({"input": place, "message": str(outcome)})
                    if not alone:
                        progress.console.print(str(outcome), markup=False, soft_wrap=True)
                else:
                    self.results.append(outcome)
                    if lines:
                        print(_line(outcome))
        self.seconds = time.perf_counter() - start

    def _pictures(
        self, sources: list[Source], progress: Progress
    ) -> Iterator[tuple[str, dict[str, Any] | UserError]]:
        from espnetv2.predict.output import save_look
        from espnetv2.predict.pipeline import look_at, read_pictures

        sources = sources[: self.limit]
        if not sources:
            return
        task = progress.add_task("pictures", total=len(sources))
        looks = look_at(
            self.predictor,
            read_pictures(sources),
            batch_size=self.batch_size,
            tiles=self.tiles,
            clock=self.clock,
        )
        with closing(looks):
            for look in looks:
                place, error = look.source.place, look.error
                if error is not None:
                    yield place, error
                else:
                    score = self.predictor.score
                    yield place, save_look(look, self.out, opacity=self.opacity, score=score)
                progress.advance(task)
                del look

    def _clips(
        self, sources: list[Source], progress: Progress
    ) -> Iterator[tuple[str, dict[str, Any] | UserError]]:
        from espnetv2.predict.clip import save_clip

        for source in sources:
            if source.kind == "picture":
                continue
            task = progress.add_task(source.name, total=None)

            def advance(frames: int, task: TaskID = task) -> None:
                progress.update(task, total=frames or None, advance=1)

            try:
                record = save_clip(
                    self.predictor,
                    source,
                    self.out,
                    batch_size=self.batch_size,
                    tiles=self.tiles,
                    limit=self.limit,
                    opacity=self.opacity,
                    clock=self.clock,
                    advance=advance,
                )
                yield source.place, record
            except UserError as error:
                yield source.place, error

    def summary(self) -> dict[str, Any]:
        """What was done, how fast, and where it lies."""
        assert self.clock is not None
        looks, model = self.clock.looks, self.clock.model_seconds
        return {
            "model": self.predictor.name,
            "task": self.predictor.task,
            "out": str(self.out),
            "looks": looks,
            "seconds": round(self.seconds, 3),
            "per_second": float(f"{looks / self.seconds:.4g}") if self.seconds else 0.0,
            "model_per_second": float(f"{looks / model:.4g}") if model else 0.0,
            "results": self.results,
            "errors": self.errors,
        }


def _line(record: dict[str, Any]) -> str:
    if "top" in record:
        found = ", ".join(f"{one['label']} {one['score']:.0%}" for one in record["top"][:3])
    elif "detections" in record:
        names = [one["label"] for one in record["detections"]]
        counts = {name: names.count(name) for name in names}
        found = ", ".join(f"{count} {name}" for name, count in counts.items()) or "no boxes"
    elif "frames" in record:
        found = f"{record['frames']} frames -> {record['files'][0]}"
        if record["damaged_packets"]:
            found += f" ({record['damaged_packets']} damaged places left out)"
    else:
        shares = list(record["shares"].items())[:3]
        found = ", ".join(f"{name} {share:.0%}" for name, share in shares)
    return f"{record['input']}: {found}"


def _sentence(summary: dict[str, Any]) -> str:
    looks = summary["looks"]
    done = f"{looks} picture{'' if looks == 1 else 's'} or frames in {summary['seconds']:.1f} s"
    fast, whole = summary["model_per_second"], summary["per_second"]
    rates = (
        f"{1000 / fast if fast else 0:.0f} ms each in the network ({_rate(fast)} per second), "
        f"{_rate(whole)} per second with reading, drawing and writing"
    )
    bad = f"; {len(summary['errors'])} could not be read" if summary["errors"] else ""
    where = f"; results in {summary['out']}" if summary["results"] else ""
    return f"{done}: {rates}{bad}{where}"


def _rate(value: float) -> str:
    return f"{value:.1f}" if value >= 0.1 else f"{value:.2g}"


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """On stderr, gone when done."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(
        console=console,
        transient=True,
        disable=not sys.stderr.isatty(),
        redirect_stdout=sys.stdout.isatty(),  # what goes into a pipe must stay there
    ) as progress:
        yield progress
