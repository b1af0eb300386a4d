"""`espnetv2 reproduce`: the papers' tables and figures, with our values beside theirs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from espnetv2.cli.table import print_table
from espnetv2.errors import UserError

if TYPE_CHECKING:
    from espnetv2.reproduce.report import Report
    from espnetv2.reproduce.sources import Sources


def reproduce(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TABLE|FIGURE|all]...", help="Which; none lists them."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            envvar="ESPNETV2_DATA",
            help="Folder of data sets (camvid/, imagenet/, voc/, ...); without it rows that need "
            "data show what is on record, or the command.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for JSON, Markdown and figures (PNG, SVG).")
    ] = None,
    threads: Annotated[
        int, typer.Option(min=1, help="CPU threads; more help only where nothing else runs.")
    ] = 1,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead of tables.")
    ] = False,
) -> None:
    """Print tables and figures of the papers: paper value, ours, the gap, how ours came to be.

    Counted values are counted now; evaluations run where --data has the data set and the weights
    are at hand; what was trained or timed is read from the repository's results.
    """
    from espnetv2.reproduce.catalog import CATALOG, chosen

    if not names:
        print_table(["name", "what"], [[n, item.title] for n, item in CATALOG.items()], left=2)
        return
    wanted = chosen(names)
    sources = _sources(data, wanted, out)
    import torch

    torch.set_num_threads(threads)
    documents = []
    for name in wanted:
        report = CATALOG[name].report(sources)
        documents.append(report.to_json())
        if not as_json:
            _show(documents[-1])
        if out is not None:
            _write(report, out)
    if out is not None and sources.judged:
        _save(out / "reproduce_evaluations.json", sources.judged)
    if as_json:
        print(json.dumps(documents))
    else:
        from espnetv2.reproduce.report import summary

        judged = len(sources.judged)
        fresh = f"; {judged} evaluations ran now" if judged else "; scores of weights are on record"
        print(f"{summary(documents)}{fresh}")


def _sources(data: Path | None, wanted: list[str], out: Path | None) -> Sources:
    """Check what the user gave before anything is computed."""
    from espnetv2.extras import require
    from espnetv2.reproduce.catalog import CATALOG
    from espnetv2.reproduce.sources import Sources, project

    if data is not None and not data.is_dir():
        raise UserError(f"--data {data} is no folder; it should hold camvid/, imagenet/ and others")
    if out is not None:
        if out.exists() and not out.is_dir():
            raise UserError(f"--out {out} is a file; give a folder")
        if any(CATALOG[name].draw for name in wanted):
            require("matplotlib", extra="plots", advice="or leave out --out")
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write {out} ({error.strerror or error})") from error
    return Sources(data, project(), lambda line: typer.echo(line, err=True))


def _show(document: dict[str, Any]) -> None:
    from espnetv2.reproduce.report import text

    print(text(document))
    print()


def _write(report: Report, out: Path) -> None:
    from espnetv2.reproduce.catalog import CATALOG
    from espnetv2.reproduce.report import markdown
    from espnetv2.reproduce.style import save

    document = report.to_json()
    stem = f"reproduce_{report.name}"
    _save(out / f"{stem}.json", document)
    (out / f"{stem}.md").write_text(markdown(document), encoding="utf-8")
    figure = CATALOG[report.name].figure(report)
    if figure is not None:
        save(figure, out, stem)


def _save(path: Path, document: Any) -> None:
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
