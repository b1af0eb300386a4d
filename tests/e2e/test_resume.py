"""Killed at any step and resumed, a run ends with the very same weights."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file


def command(folder, out, *more):
    return [
        sys.executable,
        *("-m", "espnetv2", "train", str(folder / "tiny.yaml")),
        *("--data", str(folder / "data"), "--out", str(out), "--device", "cpu"),
        *("--threads", "1", "--checkpoint-steps", "1", *more),
    ]


def run(folder, out, *more):
    done = subprocess.run(
        command(folder, out, *more), capture_output=True, text=True, check=False, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return done


def kill_after(folder, out, saves, *more):
    """Start a run and kill it without warning once it has saved `saves` checkpoints."""
    process = subprocess.Popen(
        command(folder, out, *more), stderr=subprocess.DEVNULL, cwd=folder, start_new_session=True
    )
    seen, last = 0, None
    while seen < saves and process.poll() is None:
        try:
            now = (out / "last.ckpt").stat().st_mtime_ns
        except FileNotFoundError:
            now = last
        seen, last = seen + (now != last), now
        time.sleep(0.002)
    assert process.poll() is None, "the run ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("saves", "norm"), [pytest.param(2, "frozen", marks=pytest.mark.slow), (7, "no")]
)
def test_killed_and_resumed_equals_uninterrupted(camvid, saves, norm):
    whole, broken = camvid / "whole", camvid / "broken"
    norms = ("--set", f"freeze_norm={norm}")
    run(camvid, whole, *norms)
    kill_after(camvid, broken, saves, *norms)
    torch.load(broken / "last.ckpt", weights_only=False)  # never torn
    assert not (broken / "summary.json").exists()
    run(camvid, broken, *norms, "--resume")
    first, second = load_file(whole / "model.safetensors"), load_file(broken / "model.safetensors")
    assert [k for k in first if not torch.equal(first[k], second[k])] == []
    ends = [torch.load(p / "last.ckpt", weights_only=False) for p in (whole, broken)]
    states = [end["state_dict"] for end in ends]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    scores = [(p / "history.csv").read_text().splitlines() for p in (whole, broken)]
    assert [row.rsplit(",", 1)[0] for row in scores[0]] == [
        row.rsplit(",", 1)[0] for row in scores[1]
    ]


def test_a_folder_with_a_run_is_not_overwritten(camvid):
    run(camvid, camvid / "once", "--set", "epochs=1")
    again = subprocess.run(
        command(camvid, camvid / "once"), capture_output=True, text=True, check=False
    )
    assert again.returncode == 2
    assert again.stderr.splitlines()[-1].startswith("error: ")
    assert "--resume" in again.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ctrl_c_saves_and_says_how_to_go_on(camvid):
    whole, stopped = camvid / "whole", camvid / "stopped"
    process = subprocess.Popen(
        command(camvid, stopped), stderr=subprocess.PIPE, text=True, cwd=camvid
    )
    while not (stopped / "last.ckpt").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 2
    assert errors.splitlines()[-1].startswith("error: interrupted; all is saved in ")
    run(camvid, whole)
    run(camvid, stopped, "--resume")
    first, second = load_file(whole / "model.safetensors"), load_file(stopped / "model.safetensors")
    assert [k for k in first if not torch.equal(first[k], second[k])] == []
