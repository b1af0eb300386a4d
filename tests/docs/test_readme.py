"""Every command and every piece of Python in the README and in docs/ runs."""

import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


OWN = {
    "FLOWERS": "imagenette128",
    "TAGS": "coco256",
    "SCENES": "camvid",
    "CELLS": "bccd",
    "TEXTS": "ptb",
}
"""Folders of people's own data, and the real ones that stand for them."""


def commands():
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", "")  # lines that go on
        for line in "\n".join(re.findall(r"```bash\n(.*?)```", text, re.S)).splitlines():
            words = line.partition(" #")[0].strip()
            if words.startswith("espnetv2 "):
                long = (" eval ", " check ", " --engine-cluster ", " export", " benchmark ")
                marks = [pytest.mark.slow] if any(word in words for word in long) else []
                found.append(pytest.param(words, id=words[:60], marks=marks))
    return found


@pytest.fixture
def desk(tmp_path, shared, monkeypatch):
    """A folder with everything that the pages name."""
    monkeypatch.setenv("ESPNETV2_WEIGHTS", str(shared / "weights"))
    monkeypatch.chdir(tmp_path)
    cat = ROOT / "examples" / "pictures" / "cat.jpg"
    (tmp_path / "holiday").mkdir()
    for name in ("street.jpg", "cat.jpg", "holiday/one.jpg"):
        shutil.copy(cat, tmp_path / name)
    Image.open(cat).resize((1500, 1200)).save(tmp_path / "slide.png")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    shutil.copy(shared / "data" / "video" / "road_1280x720.mp4", tmp_path / "clip.mp4")
    shutil.copy(shared / "weights" / "espnet" / "encoder" / "espnet_p_2_q_3.pth", "official.pth")
    return tmp_path


@pytest.mark.data
@pytest.mark.parametrize("command", commands())
def test_command_runs(command, desk, shared):
    places = {
        "MODEL": "espnetv2_seg_s0_5.edgenets_voc_256",
        "INPUT...": "cat.jpg",
        "FOLDER": str(shared / "data" / "camvid"),
        "RUN": "run",
        "DIR": str(shared / "data" / "camvid") if "eval" in command else "out",
    }
    places |= {name: str(shared / "data" / folder) for name, folder in OWN.items()}
    words = [places.get(word, word) for word in shlex.split(command)]
    if " train " in command:  # the whole command, but only a few of its steps
        words += ["--limit", "1", "--set", "epochs=1", "--set", "stages=[]", "--device", "cpu"]
    if "predict exported/" in command:  # what the line above it on the page has made
        target = words[2].partition("/")[2]
        line = "espnetv2 export espnetv2_seg_s0_5.camvid --size 256x320 --out exported --to"
        subprocess.run([sys.executable, "-m", *line.split(), target], check=True, cwd=desk)
    done = subprocess.run(
        [sys.executable, "-m", *words], capture_output=True, text=True, check=False, cwd=desk
    )
    expected = (0, 1) if " check " in command else (0,)  # 1: the doctor has found something
    assert done.returncode in expected, done.stderr


@pytest.mark.data
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_runs(page, desk):
    """A page's pieces follow one another."""
    text = page.read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    exec(compile(code, page.name, "exec"), {})
