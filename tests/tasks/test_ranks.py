"""Several processes judge one data set together."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import pytest

import rank_cases
from espnetv2.tasks import ranks

HERE = pathlib.Path(rank_cases.__file__)


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _together(folder, *, world):
    """What each process of a group says."""
    shared = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "WORLD_SIZE": str(world),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")]),
    }
    workers = [
        subprocess.Popen(
            [sys.executable, str(HERE), str(folder)],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(world)
    ]
    assert [worker.wait(timeout=120) for worker in workers] == [0] * world
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(world)]


def test_alone_there_is_nothing_to_gather():
    assert (ranks.place(), ranks.gather("mine")) == ((0, 1), ["mine"])
    with ranks.joined() as local:
        assert (local, ranks.place()) == (0, (0, 1))


@pytest.mark.slow
def test_processes_share_the_pictures_and_agree_with_one_alone(tmp_path):
    alone = json.loads(json.dumps(rank_cases.judged()))
    several = _together(tmp_path, world=2)
    for found in several:
        assert found["scores"] == alone["scores"]
    for task, read in alone["read"].items():
        shared = [number for found in several for number in found["read"][task]]
        assert sorted(shared) == read == list(range(rank_cases.PICTURES))
