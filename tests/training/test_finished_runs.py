"""What --resume does with a run that is over, nearly over, or asked to go on."""

import json

import pytest

import tiny_sets
from espnetv2.training.fit import train
from espnetv2.training.recipe import parse
from espnetv2.training.trainer import Run

RECIPE = {
    "task": "classification",
    "model": "espnetv2_s0_5",
    "data": {"size": [32, 32], "batch_size": 4, "workers": 0},
    "schedule": {"name": "cosine", "rate": 0.01},
    "epochs": 2,
}


@pytest.fixture
def again(tmp_path):
    """Runs the recipe into one folder, resuming; gives its summary."""
    tiny_sets.imagefolder(tmp_path / "data")
    place = Run(
        data=tmp_path / "data", out=tmp_path / "run", command="t", device="cpu", resume=True
    )
    return lambda **changes: train(parse(RECIPE | changes, source="test"), place)


def rows(folder):
    return len((folder / "history.csv").read_text().splitlines()) - 1


def test_a_finished_run_is_left_as_it_is(again, tmp_path):
    first = again()
    weights = (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns
    assert again() == json.loads(json.dumps(first))
    assert (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns == weights


def test_more_epochs_are_trained_when_asked_for(again, tmp_path):
    again()
    assert again(epochs=3)["epochs"] == 3
    assert rows(tmp_path / "run") == 3


def test_a_run_that_was_killed_while_it_drew_its_report_draws_it_again(again, tmp_path):
    first = again()
    out = tmp_path / "run"
    history = (out / "history.csv").read_text()
    (out / "summary.json").unlink()  # written last
    for drawn in (out / "report").iterdir():
        drawn.unlink()
    second = again()
    assert second["metrics"] == first["metrics"]
    assert second["best_epoch"] == first["best_epoch"]
    assert (out / "history.csv").read_text() == history
    assert (out / "report" / "report.json").is_file()
