"""The rules of docs/architecture.md, held by tests."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )


@pytest.mark.parametrize(
    "code",
    [
        "import espnetv2; espnetv2.list_models()",
        "import espnetv2.cli.app",
        "from espnetv2.cli.models import models; models('*', as_json=True)",
    ],
)
def test_light_things_import_no_torch(code):
    heavy = "{'torch', 'torchvision', 'timm', 'pytorchcv', 'lightning', 'matplotlib'}"
    done = run(f"{code}\nimport sys; sys.stderr.write(repr({heavy} & set(sys.modules)))")
    assert (done.returncode, done.stderr) == (0, "set()")


@pytest.mark.parametrize(
    ("limit", "arguments"),
    [(0.4, ["--help"]), (1.0, ["models", "--json"])],
)
def test_light_commands_take_little_processor_time(limit, arguments):
    """The least of several runs, in processor seconds of the child: the machine is shared."""
    code = (
        "import resource, subprocess, sys\n"
        f"subprocess.run([sys.executable, '-m', 'espnetv2', *{arguments}], "
        "stdout=subprocess.DEVNULL, check=True)\n"
        "use = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(use.ru_utime + use.ru_stime)"
    )
    assert min(float(run(code).stdout) for _ in range(5)) < limit


def test_commands_are_these():
    """The command line grows only on purpose."""
    from espnetv2.cli.app import app

    names = [c.name or c.callback.__name__ for c in app.registered_commands]
    expected = [
        "models",
        "info",
        "predict",
        "eval",
        "convert",
        "export",
        "benchmark",
        "train",
        "reproduce",
        "demo",
    ]
    assert names == expected


def test_files_stay_short():
    long = {str(p.relative_to(ROOT)): n for p in SOURCES if (n := lines(p)) > 350}
    assert long == {}


def lines(path):
    return len(path.read_text(encoding="utf-8").splitlines())


def test_no_room_for_leftovers():
    names = {p.stem for p in SOURCES}
    assert not names & {"utils", "helpers", "common", "misc", "util"}


def test_only_the_command_line_prints():
    for path in SOURCES:
        if "cli" in path.parts:
            continue
        calls = [
            node.lineno
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in {"print", "exit"}
        ]
        assert calls == [], f"{path.relative_to(ROOT)} prints or exits in lines {calls}"


def test_papers_that_docstrings_cite_are_in_the_bibliography():
    known = set(re.findall(r"^@\w+\{(\w+),", (ROOT / "docs/papers.bib").read_text(), re.M))
    for path in SOURCES:
        for cited in re.findall(r"Paper: (\w+)", path.read_text(encoding="utf-8")):
            assert cited in known, f"{path.relative_to(ROOT)} cites {cited}"


def test_every_deviation_has_a_row_a_mark_and_a_test():
    rows = {}
    for line in (ROOT / "docs/deviations.md").read_text(encoding="utf-8").splitlines():
        if match := re.match(r"\| (D\d+) \|", line):
            assert match[1] not in rows, f"{match[1]} stands twice"
            rows[match[1]] = line
    marks = {m for p in SOURCES for m in re.findall(r"\bD\d+\b", p.read_text(encoding="utf-8"))}
    assert set(rows) - marks == set(), "rows without a mark in the code"
    assert marks - set(rows) == set(), "marks without a row in docs/deviations.md"
    tests = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "tests").rglob("test_*.py"))
    defined = set(re.findall(r"def (test_\w+)", tests))
    for deviation, row in rows.items():
        named = re.findall(r"`(test_\w+)`", row)
        assert named, f"{deviation} names no test"
        assert set(named) <= defined, f"{deviation} names {set(named) - defined}"


def test_nothing_names_this_machine():
    tracked = subprocess.run(
        ["git", "ls-files"], capture_output=True, text=True, check=False, cwd=ROOT
    ).stdout.split()
    for name in tracked:
        if name.endswith((".py", ".md", ".toml", ".yaml", ".txt", "Makefile", "run")):
            text = (ROOT / name).read_text(encoding="utf-8")
            assert not re.search(r"(^|[^\w.-])/(work|root|farm)/", text), name
