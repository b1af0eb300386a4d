"""What docs/conf.py needs: tables of contents, the reference pages, docstrings as reStructuredText.

Docstrings of this project are plain text in Google's form, with code in single backticks and
one-line `Paper:` and `Shape:` notes. `tidy` turns that into what Sphinx reads.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "espnetv2"
ROOMS = {
    "espnetv2": "The package",
    "kernels": "Fused operators",
    "layers": "Modules with parameters",
    "models": "Networks",
    "data": "Data sets and preprocessing",
    "weights": "Weights",
    "tasks": "Tasks, results, metrics, protocols",
    "deploy": "Folding, export, engines, verification",
    "profiling": "Counts, latency, energy",
    "predict": "Prediction",
    "training": "Training and recipes",
    "reproduce": "The papers' tables and figures",
    "demo": "The demo page",
}
"""Folders of the package with their titles, in the order of the site. `cli` is in COMMANDS."""

COMMANDS = (
    *("models", "info", "predict", "eval", "train", "data check", "data weights", "data shards"),
    *("data coco2voc", "export", "benchmark", "convert", "demo", "reproduce"),
)

OUTSIDE = [(r"py:.*", r"(?!espnetv2\.).*"), (r"py:.*", r"espnetv2\..*\.[A-Z]")]
"""Names of other packages, not looked up since the site is built offline; type variables."""


UNSHOWN = ("launch", "triton")
"""Modules of the kernels that import Triton, which not every machine has."""


def toctree(caption: str, pages: list[str]) -> str:
    """A hidden table of contents in MyST."""
    head = "```{toctree}\n:hidden:\n" + (f":caption: {caption}\n" if caption else "")
    return "\n\n" + head + "\n" + "\n".join(pages) + "\n```\n"


def contents_of(index: str) -> str:
    """Tables of contents from headings and the links of the lists below them."""
    parts = []
    for section in re.split(r"^## ", index, flags=re.MULTILINE)[1:]:
        title, _, body = section.partition("\n")
        pages = re.findall(r"^- \[([^]]*)\]\(([^)#:]+)\.md\)", body, re.MULTILINE)
        if pages:
            parts.append(toctree(title, [f"{name} <{page}>" for name, page in pages]))
    return "".join(parts)


def rooms() -> list[str]:
    """The rooms that exist, and the page of the command line."""
    here = [room for room in ROOMS if room == "espnetv2" or (PACKAGE / room).is_dir()]
    return [here[0], "commands", *here[1:]]


def modules(room: str) -> list[str]:
    """Dotted names of a room's modules; the package's own ones beside the rooms."""
    folder = PACKAGE if room == "espnetv2" else PACKAGE / room
    files = [path for path in folder.glob("*.py") if not path.stem.startswith("__")]
    if room == "kernels":  # a folder for each operator
        inner = [path for path in folder.glob("*/*.py") if path.stem not in UNSHOWN]
        files += [path.parent if path.stem == "__init__" else path for path in inner]
    parts = (path.relative_to(PACKAGE).with_suffix("").parts for path in sorted(files))
    return [".".join(("espnetv2", *names)) for names in parts]


def write_pages(folder: Path) -> None:
    """One page of reference for each room, and one of all commands; unchanged ones stay."""
    folder.mkdir(exist_ok=True)
    pages = {f"{room}.rst": _page(room) for room in rooms() if room != "commands"}
    pages["commands.rst"] = _commands()
    for old in folder.glob("*.rst"):
        if old.name not in pages:
            old.unlink()
    for name, text in pages.items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def _title(text: str, mark: str) -> str:
    return f"{text}\n{mark * len(text)}\n\n"


def _page(room: str) -> str:
    page = _title(ROOMS[room], "=")
    if room == "espnetv2":
        page += ".. automodule:: espnetv2\n   :no-members:\n\n"
        for name in ("create_model", "list_models", "load"):
            page += f".. autofunction:: espnetv2.{name}\n\n"
    for module in modules(room):
        page += _title(f"``{module.removeprefix('espnetv2.')}``", "-")
        page += f".. automodule:: {module}\n\n"
    return page


def _commands() -> str:
    import typer
    from typer.testing import CliRunner

    from espnetv2.cli.app import app

    known = {path.stem for path in (PACKAGE / "cli").glob("*.py")}
    page = _title("Commands", "=") + "What ``espnetv2 COMMAND --help`` prints.\n\n"
    for command in COMMANDS:
        if command.split()[0] not in known:
            continue
        done = CliRunner(env={"COLUMNS": "90", "TERMINAL_WIDTH": "90"}).invoke(
            app, [*command.split(), "--help"], prog_name="espnetv2"
        )
        if done.exit_code:
            raise typer.Exit(done.exit_code) from done.exception
        text = "".join(f"   {line}".rstrip() + "\n" for line in done.output.splitlines())
        page += _title(f"espnetv2 {command}", "-") + f"::\n\n{text}\n"
    return page


def tidy(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """A docstring of this project as reStructuredText, in place."""
    if isinstance(obj, property) or what == "attribute":
        lines[:] = [line for line in lines if not line.startswith("Alias for field number")]
    text = "\n".join(lines)
    pieces = re.split(r"(^ *>>>[^\n]*(?:\n[^\n]+)*)", text, flags=re.MULTILINE)  # doctests stay
    pieces[::2] = [_escaped(piece) for piece in pieces[::2]]
    lines[:] = _notes("".join(pieces)).split("\n")


def _escaped(text: str) -> str:
    """Single backticks are code; `*`, `|` and a last `_` of plain text are just letters."""
    parts = re.split(r"(``[^`]+``|`[^`]+`)", text)
    for place in range(0, len(parts), 2):
        plain = re.sub(r"([*|])", r"\\\1", parts[place])
        plain = re.sub(r"(?<=\w)_(?!\w)", r"\\_", plain)
        if place and plain[:1].isalnum():
            plain = "\\ " + plain
        if place + 1 < len(parts) and re.search(r"[^\s(\[{<\"'/:-]$", plain):
            plain += "\\ "
        parts[place] = plain
    parts[1::2] = [f"``{' '.join(code.strip('`').split())}``" for code in parts[1::2]]
    return "".join(parts)


def _notes(text: str) -> str:
    """`Paper: ...` and `Shape: ...` with the lines that go on become fields."""
    note = re.compile(r"^(Paper|Shape): (.*(?:\n(?!Paper:|Shape:)\S.*|\n +\S.*)*)", re.MULTILINE)
    body = note.sub(lambda m: f":{m[1]}: " + re.sub(r"\n *", "\n    ", m[2]), text)
    return re.sub(r"(?<!\n)\n(:(?:Paper|Shape):)", r"\n\n\1", body)
