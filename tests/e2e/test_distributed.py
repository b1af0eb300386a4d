"""Two gloo processes are one process with the joined batch; a killed worker is no loss."""

import csv
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from close import assert_close

# No pixel is left out and none weighs more, so that the mean over processes is the mean over the
# batch; norms are frozen, since each process would see its own half.
SETTINGS = (
    *("--set", "loss.class_weights=none", "--set", "data.augment=none"),
    *("--set", "freeze_norm=frozen", "--set", "ema=null", "--set", "epochs=2"),
)


def command(folder, out, *more):
    return [
        *("-m", "espnetv2", "train", str(folder / "tiny.yaml")),
        *("--data", str(folder / "data"), "--out", str(out), "--device", "cpu"),
        *("--threads", "1", *SETTINGS, *more),
    ]


def torchrun(*words):
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
        *("--standalone", "--max-restarts", "2", *words),
    ]


def run(words, folder):
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]


def history(out):
    with (out / "history.csv").open() as file:
        return [
            {k: float(v) for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)
        ]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_are_one_with_the_joined_batch(camvid):
    one, two = camvid / "one", camvid / "two"
    run([sys.executable, *command(camvid, one, "--set", "data.batch_size=8")], camvid)
    run(torchrun(*command(camvid, two)), camvid)
    first, second = load_file(one / "model.safetensors"), load_file(two / "model.safetensors")
    for name, value in first.items():
        if value.is_floating_point():
            assert_close(name, second[name], value, 1e-5)
    for ours, theirs in zip(history(one), history(two), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_worker_is_started_again_and_nothing_is_lost(camvid):
    calm, killed = camvid / "calm", camvid / "killed"
    run(torchrun(*command(camvid, calm, "--checkpoint-steps", "1")), camvid)
    words = torchrun(*command(camvid, killed, "--checkpoint-steps", "1", "--resume"))
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, cwd=camvid)
    while not (killed / "last.ckpt").exists():
        assert process.poll() is None, process.stderr.read()[-3000:]
        time.sleep(0.01)
    children = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(process.pid)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    workers = [int(line.split()[0]) for line in children if "espnetv2" in line]
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == 0, errors[-3000:]
    first, second = load_file(calm / "model.safetensors"), load_file(killed / "model.safetensors")
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
