"""`espnetv2 demo`: mistakes are one line and exit code 2."""

import importlib
import socket
import subprocess
import sys

import pytest

from espnetv2.cli.demo import demo
from espnetv2.demo.serve import address, listen
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
    ("words", "expected"),
    [
        (("--runs", "nowhere"), "nowhere: no such folder"),
        (("--weights", "espnetv2_seg_s0_5.camvit"), "did you mean espnetv2_seg_s0_5.camvid"),
        (("--weights", "nothing.safetensors"), "no such file"),
        (("--host", "203.0.113.7"), "--host"),
    ],
)
def test_mistakes_are_one_line(words, expected):
    done = run("--port", "0", *words)
    assert done.returncode == 2, done.stderr
    assert expected in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


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
