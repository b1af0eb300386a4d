"""Every command and every piece of Python in the README and in docs/ runs, or says why not here."""

import itertools
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from docs.commands import PAGES, ROOT, commands_of, python_of, shown
from espnetv2.training.recipe import load_recipe

# Pages whose commands follow one another: what one writes, the next one reads.
PATHS = [
    page
    for page in PAGES
    if page.parent.name == "quickstart"
    or page.name in ("datasets.md", "training.md", "from-edgenets.md", "distributed.md")
]
LONG = (" eval ", " check ", " --engine-cluster ", " export", " benchmark ", " reproduce", " demo")

ELSEWHERE = {
    r"make (setup|demo|test|lint|docs|counts|litert)$": "Makefile",
    r"cmake -S (native|\.) -B build|cmake --install build": "tests/native/test_install.py",
    r"build/espnetv2-run": "tests/deploy/test_native_pictures.py",
    r"pip install \.$": "Makefile",
    r"cmake -S examples/onnx_cpp|cmake --build build|build/run_onnx": (
        "tests/deploy/test_examples_onnx.py"
    ),
    r"\.venv-litert/bin/espnetv2 |espnetv2 predict exported/litert": "tests/deploy/test_litert.py",
    r"espnetv2 train RECIPE .*\[--out RUN\]": "the form of the command; its options are checked",
    r"python -c \"from PIL": "tests/deploy/test_examples_onnx.py",
    r"espnetv2 data (check|weights)$": "tests/cli/test_data.py",
    r"curl -F file=@": "tests/demo/test_answers.py",
}
"""Commands that no test of this file runs -> the file that runs the same."""

NOT_HERE = {
    r"trtexec ": "needs an NVIDIA GPU and TensorRT",
    r"sudo ": "changes the machine's clocks or rights",
    r"espnetv2 .*--device cuda": "needs an NVIDIA GPU; tests marked gpu do the same",
    r"python benchmarks/": "measures for minutes; its result file is what tests compare with",
    r"python tools/": "regenerates a committed file, with which tests compare it",
    r"espnetv2 train (imagenette|camvid) .*\.\./shared": "the run of an hour behind a model card",
    r"tensorboard --logdir": "waits for a browser; tests/training reads the files it shows",
    r"pip install \"espnetv2": "needs the package index; the extra's name is checked",
}
"""Commands that nothing here runs -> why."""


def marked(command, *, fast_pages=("README.md",)):
    line = command.line
    long = any(word in line for word in LONG) or line.startswith(("torchrun", "TORCH_"))
    long = long or (" train " in line and command.page.name not in fast_pages)
    return [pytest.mark.slow, pytest.mark.timeout(1800)] if long else []


def elsewhere(command):
    rows = [*ELSEWHERE.items(), *NOT_HERE.items()]
    return next((why for pattern, why in rows if re.match(pattern, command.line)), None)


def is_run(command):
    """All of a block that is bash or says nothing; "text" is for what only has to be seen."""
    return command.where in ("bash", "plain") and elsewhere(command) is None


def single():
    seen, found = set(), []
    for page in PAGES:
        for command in [] if page in PATHS else commands_of(page):
            if is_run(command) and command.line not in seen:
                seen.add(command.line)
                found.append(pytest.param(command, id=command.name, marks=marked(command)))
    return found


def prepared(command, own, shared):
    """The command as this machine can run it: real folders, few steps."""
    line = command.line
    places = own | {
        "MODEL": "espnetv2_seg_s0_5.edgenets_voc_256",
        "INPUT...": "cat.jpg",
        "RECIPE": "camvid",
        "RUN": "run",
        "DIR": own["CAMVID"] if " eval " in line else "out",
    }
    variables, words = {}, []
    for word in shlex.split(line):
        if "=" in word and not words:
            name, _, variables[name] = word.partition("=")
        else:
            words.append(places.get(word, word))
    if words[0] == "torchrun":  # as many machines and processes as there are
        words = " ".join(words).replace("FIRST_HOST:29500", f"localhost:{free_port()}")
        words = words.replace("--nnodes 2", "--nnodes 1").replace("--nproc-per-node 4", "")
        words = ["torch.distributed.run", *words.split()[1:]]
        place = words.index("-m")
        words[place:place] = [] if "--nproc-per-node" in words else ["--nproc-per-node", "2"]
    if words[0] == "python":
        return [sys.executable, *words[1:]], os.environ | {"OMP_NUM_THREADS": "1"}
    if "benchmark" in words and "--seconds" not in words:
        words += ["--seconds", "0.2"]
    if "--eval-data" in words:
        words += ["--eval-limit", "4"]
    if "--gate-data" in words:
        words += ["--gate-limit", "4"]
    if "train" in words:  # the whole command, but only a few of its steps
        words += few(words)
    return [sys.executable, "-m", *words], os.environ | {"OMP_NUM_THREADS": "1"} | variables


def few(words):
    changed = " ".join(words)
    more = ["--limit", "1", "--set", "epochs=1", "--set", "stages=[]", "--device", "cpu"]
    recipe = words[words.index("train") + 1]
    if recipe != "language":
        more += ["--set", "data.workers=0"]
        if recipe not in ("classify", "multilabel", "segment", "detect"):
            more += ["--set", "data.batch_size=2"]
    if "cityscapes" in changed:  # one pair is all that travels
        more += ["--set", "data.val_split=train", "--set", "data.batch_size=1"]
    return more


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def run(command, desk, own, shared):
    words, variables = prepared(command, own, shared)
    if "demo" in words[3:4]:
        return show_page(words, variables, desk)
    artefact = next((word for word in words if word.startswith("exported/")), None)
    if artefact is not None and not (desk / artefact).exists():  # what the line above it has made
        line = "espnetv2 export espnetv2_seg_s0_5.camvid --size 256x320 --out exported --to"
        target = artefact.partition("/")[2]
        subprocess.run([sys.executable, "-m", *line.split(), target], check=True, cwd=desk)
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, cwd=desk, env=variables
    )
    expected = (0, 1) if " check " in command.line else (0,)  # 1: the doctor has found something
    assert done.returncode in expected, f"{command.line}\n{done.stdout}\n{done.stderr[-3000:]}"
    return done


def show_page(words, variables, desk):
    """`espnetv2 demo` runs until it is ended: it must come up and answer."""
    port = free_port()
    if "--port" in words:
        words[words.index("--port") + 1] = str(port)
    else:
        words += ["--port", str(port)]
    words = [word for word in words if word != "--open"]
    (desk / "runs").mkdir(exist_ok=True)
    server = subprocess.Popen(
        words, cwd=desk, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        until = time.monotonic() + 300
        while True:
            assert server.poll() is None, server.stdout.read()
            assert time.monotonic() < until, "the page did not come up"
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=60) as got:
                    assert got.status == 200
                    assert json.load(got)
                    break
            except OSError:
                time.sleep(0.2)
    finally:
        server.terminate()
        server.communicate(timeout=60)


@pytest.mark.data
@pytest.mark.parametrize("command", single())
def test_command_runs(command, desk, own, shared):
    run(command, desk, own, shared)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("page", PATHS, ids=lambda page: page.stem)
def test_path_runs(page, desk, own, shared):
    """A page's commands, one after the other, in one folder."""
    for command in commands_of(page):
        if is_run(command):
            run(command, desk, own, shared)


@pytest.mark.data
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if python_of(page) and page.stem != "contributing"],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_python_runs(page, desk):
    exec(compile(python_of(page), page.name, "exec"), {})


@pytest.mark.parametrize("command", [pytest.param(c, id=c.name) for c in shown()])
def test_command_is_run_or_accounted_for(command):
    """Nothing that looks like a command is passed over, and no option is made up."""
    if command.line.startswith("espnetv2 "):
        assert unknown_options(command.words[1:]) == set()
    why = elsewhere(command)
    if why is not None:
        assert " " in why or (ROOT / why).is_file()
    elif not is_run(command):  # within a sentence: its options, and its recipe, exist
        assert command.where == "text", f"{command.page}: nothing runs {command.line}"
        assert command.line.startswith("espnetv2 "), f"{command.page}: nothing runs {command.line}"
        if len(command.words) > 2 and command.words[1] == "train" and command.words[2].islower():
            changes = [b for a, b in itertools.pairwise(command.words) if a == "--set"]
            load_recipe(command.words[2], changes=changes)
    else:
        assert re.match(r"(TORCH\w+=\d )?(espnetv2|torchrun|python examples/)", command.line)


def unknown_options(words):
    import typer

    from espnetv2.cli.app import app

    group = typer.main.get_command(app)
    while hasattr(group, "commands"):
        name, *words = words or [""]
        if name.startswith("-"):
            return set()
        assert name in group.commands, name
        group = group.commands[name]
    known = {option for one in group.params for option in (*one.opts, *one.secondary_opts)}
    given = {word.partition("=")[0].strip("[].") for word in words if word.startswith(("-", "[-"))}
    return given - known - {"-h", "--help"}


def test_reasons_are_still_needed():
    lines = [command.line for command in shown()]
    for pattern in (*ELSEWHERE, *NOT_HERE):
        assert any(re.match(pattern, line) for line in lines), f"no page has {pattern}"


def test_extras_exist():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = text.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    for page in PAGES:
        for named in re.findall(r"espnetv2\[([\w,-]+)\]", page.read_text(encoding="utf-8")):
            for extra in named.split(","):
                assert re.search(rf"^{extra} = ", extras, re.MULTILINE), f"{page}: {extra}"
