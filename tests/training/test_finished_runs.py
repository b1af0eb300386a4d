"""What --resume does with a run that is over, nearly over, or asked to go on."""

import json
import shutil

import pytest

import tiny_sets
from espnetv2.errors import UserError
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


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("over", [True, False])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "espnetv2_s1_0"}, "model=espnetv2_s0_5, not espnetv2_s1_0"),
        ({"optimizer": {"name": "adam"}}, "optimizer.name=sgd, not adam"),
        ({"loss": {"mixup": 0.2}}, "loss.mixup=0.0, not 0.2"),
        ({"data": {**RECIPE["data"], "batch_size": 2}}, "data.batch_size=4, not 2"),
        ({"schedule": {"name": "poly", "rate": 0.01}}, "schedule.name=cosine, not poly"),
        ({"seed": 7}, "seed=1882, not 7"),
    ],
)
def test_a_run_goes_on_with_its_own_settings_only(began, changes, words, over):
    again, out = began
    if not over:
        (out / "summary.json").unlink()
    before = files(out)
    with pytest.raises(UserError, match=f"was begun with {words}; a run is resumed with its own"):
        again(**changes, epochs=3)
    assert files(out) == before


@pytest.fixture
def began(again, tmp_path, ended):
    """A copy of a finished run, and how to go on with it."""
    shutil.copytree(ended, tmp_path / "run")
    return again, tmp_path / "run"


@pytest.fixture(scope="session")
def ended(tmp_path_factory):
    """A finished run."""
    root = tmp_path_factory.mktemp("ended")
    data = tiny_sets.imagefolder(root / "data")
    recipe = parse({**RECIPE, "epochs": 1}, source="test")
    train(recipe, Run(data=data, out=root / "run", command="t", device="cpu"))
    return root / "run"


def test_what_changes_no_batch_may_differ(began):
    again, _ = began
    assert again(data={**RECIPE["data"], "workers": 1}, expect="more", epochs=1)["epochs"] == 1


@pytest.mark.parametrize("name", ["last.ckpt", "summary.json", "recipe.json"])
def test_a_damaged_file_is_named(began, name):
    again, out = began
    if name == "last.ckpt":
        (out / "summary.json").unlink()
    whole = (out / name).read_bytes()
    (out / name).write_bytes(whole[: len(whole) // 2])
    before = files(out)
    with pytest.raises(UserError, match=f"run/{name} is damaged") as error:
        again(epochs=1)
    assert "\n" not in str(error.value)
    assert files(out) == before


def test_data_of_other_classes_are_told(began, tmp_path):
    again, _ = began
    tiny_sets.imagefolder(tmp_path / "data", classes=("cat", "dog", "eel"))
    with pytest.raises(UserError, match="such as of data with other classes"):
        again()


def test_fewer_epochs_than_are_done(began):
    again, out = began
    again(epochs=2)
    (out / "summary.json").unlink()
    with pytest.raises(UserError, match="has reached epoch 2; epochs=1 must not be fewer"):
        again(epochs=1)


def test_a_moved_run_of_stages_goes_on(again, tmp_path):
    """Its second stage started from weights in a place that is no more."""
    stages = [{}, {"epochs": 1}]
    data = tmp_path / "data"
    recipe = parse({**RECIPE, "epochs": 1, "stages": stages}, source="test")
    train(recipe, Run(data=data, out=tmp_path / "there", command="t", device="cpu"))
    (tmp_path / "there").rename(tmp_path / "run")
    assert again(epochs=1, stages=stages)["epochs"] == 1
