"""Engines take turns in processes of their own."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest

from espnetv2.errors import UserError
from espnetv2.profiling.latency import Worker, begin_memory, orders, take_turns


class Sleeper:
    def __init__(self, seconds, megabytes):
        begin_memory()
        self.seconds, self.said = seconds, {"precision": "fp32"}
        self.held = np.ones(megabytes * 2**17)

    def __call__(self):
        time.sleep(self.seconds)


def refuse():
    raise UserError("no such engine")


def crash():
    raise ZeroDivisionError("oh")


def hesitate():
    time.sleep(30)


def open_two(*makers):
    workers = [Worker(maker, threads=1) for maker in makers]
    said = [worker.open() for worker in workers]
    return workers, said


def test_times_and_memory_are_each_processs_own():
    workers, said = open_two(partial(Sleeper, 0.004, 1), partial(Sleeper, 0.016, 64))
    try:
        take_turns(workers, seconds=0.5, rounds=4)
        fast, slow = (worker.timing() for worker in workers)
    finally:
        for worker in workers:
            worker.close()
    assert said == [{"precision": "fp32"}] * 2
    assert 4 <= fast.ms_min <= fast.ms_median <= fast.ms_p95
    assert slow.ms_min >= 16
    assert fast.calls > slow.calls  # a turn is about as long for all
    assert slow.peak_memory_bytes > 60e6
    assert fast.peak_memory_bytes < 30e6


def test_nobody_follows_himself_or_always_the_same():
    for count in (2, 3, 5):
        rounds = list(islice(orders(range(count)), 300))
        assert all(sorted(order) == list(range(count)) for order in rounds)
        calls = [side for order in rounds for side in order]
        assert all(before != after for before, after in pairwise(calls))
        assert len(set(pairwise(calls))) == count * (count - 1)
        assert rounds == list(islice(orders(range(count)), 300))


@pytest.mark.parametrize(
    ("maker", "words"), [(refuse, "no such engine"), (crash, "ZeroDivisionError: oh")]
)
def test_what_goes_wrong_in_the_process_is_said_here(maker, words):
    worker = Worker(maker, threads=1)
    try:
        with pytest.raises(UserError, match=words):
            worker.open()
    finally:
        worker.close()


INTERRUPTED = """
import signal
from espnetv2.profiling.latency import Worker
from profiling.test_latency import hesitate

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells ignore it in the background
    worker = Worker(hesitate, threads=1)
    print("started", flush=True)
    try:
        worker.open()
    except KeyboardInterrupt:
        worker.close()
"""


def test_a_worker_that_just_starts_says_nothing_of_ctrl_c(tmp_path):
    script = tmp_path / "measure.py"
    script.write_text(INTERRUPTED)
    program = subprocess.Popen(
        [sys.executable, str(script)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert program.stdout.readline() == "started\n"
    time.sleep(0.3)  # the worker imports torch or is about to
    os.killpg(program.pid, signal.SIGINT)
    _, said = program.communicate(timeout=60)
    assert said == ""
