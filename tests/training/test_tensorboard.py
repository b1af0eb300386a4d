import csv
import sys

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

import tiny_sets
from espnetv2.errors import UserError
from espnetv2.training.callbacks import Checkpoints
from espnetv2.training.fit import train
from espnetv2.training.language_fit import Keeper, fit_language
from espnetv2.training.recipe import parse
from espnetv2.training.trainer import Run
from training.language_run import tiny

RECIPE = {
    "task": "classification",
    "model": "espnetv2_s0_5",
    "data": {"size": [32, 32], "batch_size": 4, "workers": 0},
    "epochs": 2,
}
PICTURES = {"report/curves", "report/classes", "report/confusion", "report/predictions"}


def history(path):
    """Every number of the table: {column: {epoch: value}}."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return {
        name: {int(row["epoch"]): float(row[name]) for row in rows}
        for name in rows[0]
        if name not in ("epoch", "optimizer")
    }


def shown(folder):
    """What TensorBoard shows, in the same form."""
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    scalars = {}
    for name in events.Tags()["scalars"]:
        steps = [(event.step, event.value) for event in events.Scalars(name)]
        assert len(steps) == len(dict(steps)), f"{name} has an epoch twice"
        scalars[name] = dict(steps)
    return scalars, events


def written(folder):
    """(tag, step) of every event in every file, also of what TensorBoard would pass over."""
    return [
        (value.tag, event.step)
        for path in sorted((folder / "tensorboard").iterdir())
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
    ]


def assert_same(scalars, table):
    assert scalars.keys() == table.keys()
    for name, values in table.items():
        assert scalars[name] == {k: float(np.float32(v)) for k, v in values.items()}, name


def run(root, out, **changes):
    values = {"data": root, "out": out, "device": "cpu", "progress": False, "limit": 1}
    return train(parse(RECIPE, source="test"), Run(**values, **changes))


def dies_at(epoch, of, monkeypatch):
    """The run dies when this epoch is over and before it is saved."""
    save = of.on_train_epoch_end

    def die(self, trainer, module):
        if trainer.current_epoch == epoch:
            raise KeyError("power cut")
        save(self, trainer, module)

    monkeypatch.setattr(of, "on_train_epoch_end", die)


@pytest.mark.parametrize("stopped", [False, True])
def test_tensorboard_shows_the_history_and_no_epoch_twice(stopped, tmp_path, monkeypatch):
    root, out = tiny_sets.imagefolder(tmp_path / "data"), tmp_path / "run"
    if stopped:
        with monkeypatch.context() as patch:
            dies_at(1, Checkpoints, patch)
            with pytest.raises(KeyError):
                run(root, out, tensorboard=True)
        assert {step for _, step in written(out)} == {0, 1}
    summary = run(root, out, resume=stopped, tensorboard=True)
    scalars, events = shown(out)
    assert_same(scalars, history(out / "history.csv"))
    assert set(scalars["loss"]) == {0, 1}
    assert len(written(out)) == len(set(written(out)))
    assert set(events.Tags()["images"]) == PICTURES
    assert {path.stem for path in (out / "report").glob("*.png")} == {
        tag.removeprefix("report/") for tag in PICTURES
    }
    assert scalars["val_top1"][summary["best_epoch"]] == max(scalars["val_top1"].values())


@pytest.mark.parametrize("stopped", [False, True])
def test_language_shows_its_table(stopped, tmp_path, monkeypatch):
    for part, count in (("train", 300), ("valid", 60), ("test", 60)):
        words = " ".join(f"w{i * i % 7}" for i in range(count))
        (tmp_path / f"{part}.txt").write_text(words + "\n")
    settings, out = tiny(tmp_path, epochs=3), tmp_path / "run"
    if stopped:
        with monkeypatch.context() as patch:
            dies_at(1, Keeper, patch)
            with pytest.raises(KeyError):
                fit_language(settings, out=out, device="cpu", tensorboard=True)
    fit_language(settings, out=out, device="cpu", tensorboard=True, resume=stopped)
    scalars, events = shown(out)
    assert scalars.pop("rate") == {0: 20.0, 1: 20.0, 2: 20.0}
    assert_same(scalars, history(out / "metrics.csv"))
    assert len(written(out)) == len(set(written(out)))
    assert events.Tags()["images"] == ["report/curves"]


@pytest.mark.parametrize("task", ["classification", "language"])
def test_without_the_package_nothing_begins(task, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    text = {"task": task, "model": "eru_lm_7m"}
    recipe = parse(text if task == "language" else RECIPE, source="test")
    with pytest.raises(UserError, match=r"espnetv2\[tensorboard\]") as caught:
        train(recipe, Run(data=tmp_path, out=tmp_path / "run", tensorboard=True))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_by_default_there_is_the_table_only(tmp_path):
    root, out = tiny_sets.imagefolder(tmp_path / "data"), tmp_path / "run"
    run(root, out)
    assert (out / "history.csv").is_file()
    assert (out / "report" / "report.json").is_file()
    assert not (out / "tensorboard").exists()
