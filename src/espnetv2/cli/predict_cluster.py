"""`espnetv2 predict --engine-cluster ray`: any number of pictures to Parquet files."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import typer


def predict_on_ray(
    model: str,
    inputs: list[str],
    out: Path,
    decided: dict[str, Any],
    *,
    tiles: tuple[int, int] | None,
    limit: int | None,
    device: str,
    batch_size: int,
    workers: int | None,
    part_size: int | None,
    as_json: bool,
) -> None:
    """Begin a job or go on with it, and print what it came to.

    Args:
        decided: Fields of `predict.parquet.Settings`, without the tiles.
        tiles: Side and overlap, as typed.

    Raises:
        UserError: As `predict.job.open_job` and `predict.cluster.run_job`.
    """
    from espnetv2.cli.predict import progress_bar
    from espnetv2.extras import require
    from espnetv2.predict.cluster import run_job
    from espnetv2.predict.job import PART_SIZE, open_job
    from espnetv2.predict.media import find_pictures
    from espnetv2.predict.parquet import Settings
    from espnetv2.predict.tiling import rounded
    from espnetv2.weights.load import load_network

    require("ray", extra="ray")
    settings = Settings(**decided)
    if tiles is not None:
        tile, overlap = rounded(*tiles)
        settings = Settings(**decided, tile=tile, overlap=overlap)
    paths = find_pictures(inputs)[:limit]
    loaded = load_network(model)
    settings.predictor(loaded)  # refuses now what every worker would refuse
    job = open_job(out, loaded, paths, settings, part_size=part_size or PART_SIZE)
    start = time.perf_counter()
    with progress_bar() as progress:
        task = progress.add_task("pictures", total=len(paths))
        done = len(paths) - sum(len(job.block(number)) for number in job.open_parts())
        progress.update(task, completed=done)
        try:
            counts = run_job(
                job,
                loaded,
                settings,
                device=device,
                batch_size=batch_size,
                workers=workers,
                advance=lambda pictures: progress.advance(task, pictures),
            )
        except KeyboardInterrupt:
            sys.stderr.write("stopped; the same command goes on\n")
            raise typer.Exit(130) from None
    seconds = time.perf_counter() - start
    summary = {
        "model": loaded.name,
        "task": loaded.task,
        "out": str(out),
        **counts,
        "parts": len(job),
        "seconds": round(seconds, 3),
        "per_second": round(counts["looked_at"] / seconds, 2),
    }
    print(json.dumps(summary, indent=2) if as_json else _sentence(summary))


def _sentence(summary: dict[str, Any]) -> str:
    pictures = f"{summary['pictures']:,} picture{'' if summary['pictures'] == 1 else 's'}"
    bad = f", {summary['errors']:,} of them could not be read" if summary["errors"] else ""
    return (
        f"{pictures} in {summary['parts']} Parquet file(s) in {summary['out']}{bad}; "
        f"{summary['looked_at']:,} looked at now in {summary['seconds']:.1f} s, "
        f"{summary['per_second']:.1f} per second"
    )
