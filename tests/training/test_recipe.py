"""Recipes: short files, clear mistakes."""

import pytest
import yaml

from espnetv2.data.preprocess import CONVENTIONS
from espnetv2.data.sources import FORMATS
from espnetv2.data.transforms import POLICIES
from espnetv2.errors import UserError
from espnetv2.models.catalog import entry
from espnetv2.training.recipe import SHIPPED, list_recipes, load_recipe, stage_recipes


@pytest.mark.parametrize("name", list_recipes())
def test_shipped_recipes_are_sound(name):
    recipe = load_recipe(name)
    for stage in stage_recipes(recipe):
        row = entry(stage.model)
        kinds = {"multilabel": "classification"}
        assert row.task == kinds.get(stage.task, stage.task)
        if stage.task != "language":
            assert stage.data.convention in CONVENTIONS
            assert stage.task in POLICIES[stage.data.augment].tasks
            assert stage.data.format == "auto" or stage.task in FORMATS[stage.data.format].tasks
        rates = [stage.schedule.at(epoch, stage.epochs) for epoch in range(stage.epochs)]
        assert all(rate > 0 for rate in rates)


@pytest.mark.parametrize("name", list_recipes())
def test_shipped_recipes_say_their_command_first(name):
    text = (SHIPPED / f"{name}.yaml").read_text()
    assert text.startswith("# ")
    assert f"espnetv2 train {name} --data" in text


def test_a_base_is_changed_section_by_section(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("base: camvid\ndata: {batch_size: 3}\nschedule: {name: poly, rate: 0.1}\n")
    mine, base = load_recipe(path), load_recipe("camvid")
    assert mine.data.batch_size == 3
    assert mine.data.augment == base.data.augment
    assert mine.schedule.name == "poly"


def test_set_changes_one_value():
    recipe = load_recipe("camvid", changes=["optimizer.weight_decay=0.5", "data.size=[64, 96]"])
    assert recipe.optimizer.weight_decay == 0.5
    assert recipe.data.size == (64, 96)


def test_stages_start_from_what_they_do_not_change():
    first, second = stage_recipes(load_recipe("voc-segmentation"))
    assert (first.freeze_norm, second.freeze_norm) == ("no", "frozen")
    assert (first.data.size, second.data.size) == ((256, 256), (384, 384))
    assert first.optimizer == second.optimizer
    assert second.stages == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["optimiser.momentum=1"], ["optimiser", "optimizer"]),
        (["optimizer.momentun=1"], ["momentun", "optimizer.momentum"]),
        (["epochs=0"], ["epochs"]),
        (["epochs"], ["FIELD=VALUE"]),
        (["task=painting"], ["task"]),
        (["schedule.name=zigzag"], ["schedule"]),
    ],
)
def test_mistakes_are_one_line_with_the_closest_field(changes, words):
    with pytest.raises(UserError) as error:
        load_recipe("camvid", changes=changes)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="did you mean camvid"):
        load_recipe("camvd")
    with pytest.raises(UserError, match="cannot be read"):
        load_recipe(tmp_path / "none.yaml")
    bad = tmp_path / "bad.yaml"
    bad.write_text("a: [1")
    with pytest.raises(UserError, match="not YAML"):
        load_recipe(bad)
    circle = tmp_path / "circle.yaml"
    circle.write_text(yaml.safe_dump({"base": str(circle)}))
    with pytest.raises(UserError, match="its own base"):
        load_recipe(circle)
