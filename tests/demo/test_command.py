"""`espnetv2 demo`: mistakes are one line and exit code 2."""

import importlib
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from espnetv2.cli.demo import demo
from espnetv2.demo.serve import address, listen, serve
from espnetv2.demo.settings import Settings
from espnetv2.errors import UserError


def run(*words):
    return subprocess.run(
        [sys.executable, "-m", "espnetv2", "demo", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_port_in_use_is_one_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("--port", str(port))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"127.0.0.1:{port}" in done.stderr
    assert "--port" in done.stderr


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"runs": Path("nowhere")}, "nowhere: no such folder"),
        ({"weights": "espnetv2_seg_s0_5.camvit"}, "did you mean espnetv2_seg_s0_5.camvid"),
        ({"weights": "nothing.safetensors"}, "no such file"),
        ({"weights": "eru_lm_7m"}, "unknown weights"),
        ({"host": "203.0.113.7"}, "with --host"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_served(settings, expected):
    said = []
    with pytest.raises(UserError, match=expected) as caught:
        serve(Settings(**settings), 0, say=said.append)
    assert "\n" not in str(caught.value)
    assert said == []


def test_file_that_is_no_network_is_refused(tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(b"not at all")
    with pytest.raises(UserError, match="not a weights file"):
        serve(Settings(weights=str(tmp_path / "bad.safetensors")), 0, say=print)


def test_missing_extra_is_one_line(monkeypatch):
    real = importlib.import_module

    def without(name, package=None):
        if name == "fastapi":
            raise ModuleNotFoundError("No module named 'fastapi'", name="fastapi")
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(UserError, match=r'pip install "espnetv2\[demo\]"'):
        demo()


def test_address_can_be_opened():
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert address("127.0.0.1", port) == f"http://127.0.0.1:{port}/"
    assert address("0.0.0.0", 80) == "http://127.0.0.1:80/"
    assert address("::1", 80) == "http://[::1]:80/"
