"""What docs/contributing.md says about adding a network and a data set is done, word by word."""

import os
import re
import shutil
import subprocess
import sys

import pytest

import tiny_sets
from docs.commands import FENCED, ROOT

PAGE = (ROOT / "docs/contributing.md").read_text(encoding="utf-8")


def pieces():
    """(file, what the comment adds, code) of every piece of Python on the page."""
    found = []
    for language, body in FENCED.findall(PAGE):
        if language == "python":
            first, _, code = body.partition("\n")
            file, _, place = first.removeprefix("# ").partition(", ")
            found.append((file, place, code))
    return found


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The package with everything that the page adds."""
    root = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "src", root / "src", ignore=shutil.ignore_patterns("*.egg-info"))
    for file, place, code in pieces():
        path = root / file
        if not place:
            assert not path.exists(), f"{file} exists already"
            path.write_text(code, encoding="utf-8")
            continue
        text = path.read_text(encoding="utf-8")
        if place.startswith("above "):
            mark = place.removeprefix("above ") + " = "
            assert text.count(f"\n{mark}") == 1
            text = text.replace(f"\n{mark}", f"\n{code}\n\n{mark}")
        elif place.startswith("at the end of _"):
            start = text.index(f"def {place.removeprefix('at the end of ')}()")
            end = text.index("    return rows", start)
            text = text[:end] + f"    {code}" + text[end:]
        else:
            text = f"{text}\n{code}"
        if re.search(r"\bfields\.read\b", code):
            text = text.replace("from espnetv2.data import ", "from espnetv2.data import fields, ")
            text = text.replace("import fields, (", "import (\n    fields,")
        path.write_text(text, encoding="utf-8")
    return root


def run(copy, *words):
    done = subprocess.run(
        [sys.executable, "-m", "espnetv2", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        cwd=copy,
        env=os.environ | {"PYTHONPATH": str(copy / "src"), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_page_has_what_is_done_here():
    assert [(file.rpartition("/")[2], bool(place)) for file, place, _ in pieces()] == [
        ("tiny.py", False),
        ("catalog.py", True),
        ("catalog.py", True),
        ("fields.py", False),
        ("catalog.py", True),
        ("protocols.py", True),
        ("sources.py", True),
    ]


@pytest.mark.slow
def test_a_new_network_is_counted_and_is_trained(copy, tmp_path):
    assert "Conv2d" in run(copy, "info", "tiny")
    data = tiny_sets.imagefolder(tmp_path / "data")
    settings = ("epochs=1", "model=tiny", "data.size=[64, 64]", "data.workers=0")
    changes = [word for setting in settings for word in ("--set", setting)]
    out = tmp_path / "run"
    run(copy, "train", "classify", "--data", data, "--out", out, "--device", "cpu", *changes)
    said = run(copy, "predict", out / "model.safetensors", data / "val/cat/0.png", "--out", out)
    assert "cat" in said


@pytest.mark.slow
def test_a_new_data_set_is_checked_trained_on_and_judged(copy, tmp_path):
    data = tiny_sets.masks(tmp_path / "data", images="air", labels="crops", values=(0, 1, 2, 255))
    settings = ("data.format=fields", "data.size=[32, 32]", "epochs=1", "data.workers=0")
    changes = [word for setting in settings for word in ("--set", setting)]
    out = tmp_path / "run"
    run(copy, "train", "segment", "--data", data, "--out", out, "--device", "cpu", *changes)
    assert "wheat" in run(copy, "data", "weights", "--format", "fields", "--data", data)
    told = run(copy, "eval", out / "model.safetensors", "--dataset", "fields", "--data", data)
    assert "void-ignored" in told
    assert "maize" in told
