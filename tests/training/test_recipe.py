"""Recipes: short files, clear mistakes."""

import pytest
import torch
import yaml

from espnetv2.data.preprocess import CONVENTIONS
from espnetv2.data.sources import FORMATS
from espnetv2.data.transforms import POLICIES
from espnetv2.errors import UserError
from espnetv2.models.catalog import entry
from espnetv2.training.module import channels_last
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


@pytest.mark.parametrize(
    ("base", "change", "words"),
    [
        ("camvid", "schedule.rate=0", "schedule.rate: Input should be greater than 0 (got 0)"),
        ("camvid", "schedule.rate=.inf", "schedule.rate: Input should be a finite number"),
        ("camvid", "schedule.warm_up=-1", "schedule.warm_up"),
        ("camvid", "schedule.final=2", "schedule.final"),
        ("imagenet", "schedule.cycle=0", "schedule.cycle"),
        ("imagenet-eq1", "schedule.cycle=0", "schedule.cycle"),
        ("imagenet-eq1", "schedule.minimum=0.6", "schedule: the rate falls to nothing: maximum"),
        ("cityscapes-espnet", "schedule.factor=0", "schedule.factor"),
        ("camvid", "optimizer.momentum=1", "optimizer.momentum: Input should be less than 1"),
        ("imagenet", "optimizer.momentum=0", "optimizer.nesterov: there is no momentum"),
        ("camvid", "optimizer.betas=[0.9, 1]", "optimizer.betas.1"),
        ("camvid", "optimizer.weight_decay=-1", "optimizer.weight_decay"),
        ("camvid", "optimizer.head_factor=0", "optimizer.head_factor"),
        ("camvid", "loss.label_smoothing=1", "loss.label_smoothing"),
        ("camvid", "loss.class_weights=[1, -2]", "loss.class_weights: -2 is negative"),
        ("camvid", "loss.auxiliary=-1", "loss.auxiliary"),
        ("imagenette", "loss.mixup=-1", "loss.mixup"),
        ("imagenette", "loss.cutmix=-1", "loss.cutmix"),
        ("camvid", "loss.mixup=0.2", "no part of the loss of segmentation, only of classification"),
        ("bccd", "loss.cutmix=0.2", "no part of the loss of detection"),
        ("multilabel", "loss.mixup=0.2", "no part of the loss of multilabel"),
        ("multilabel", "loss.label_smoothing=0.1", "only of classification and segmentation"),
        ("bccd", "loss.class_weights=inverse-log", "no part of the loss of detection"),
        ("imagenette", "loss.auxiliary=0.4", "only of segmentation"),
        ("camvid", "loss.match_iou=0.3", "only of detection"),
        ("camvid", "clip=0", "clip"),
        ("camvid", "ema=1", "ema"),
        ("camvid", "early_stopping=0", "early_stopping"),
        ("camvid", "seed=-1", "seed"),
        ("camvid", "seed=4294967296", "seed"),
        ("camvid", "data.size=[0, 32]", "data.size.0"),
        ("ptb", "language.bptt=0", "language.bptt"),
        ("ptb", "language.eval_batch=0", "language.eval_batch"),
        ("ptb", "language.dropout=1", "language.dropout"),
        ("ptb", "language.rate=0", "language.rate"),
        ("ptb", "language.clip=-1", "language.clip"),
        ("ptb", "language.trigger=-1", "language.trigger"),
        ("camvid", "epochs=[", "--set 'epochs=[' is not YAML"),
        ("camvid", "options.foo=1", "unknown option 'foo'; choose from base_width"),
        ("camvid", "options.base_width=abc", "options.base_width: expected a value such as 16"),
        ("camvid", "options.base_width=0", "options.base_width: expected a value such as 16"),
        ("imagenette", "options.width=2", "options.width: this model has no options"),
        ("imagenette", "options.num_classes=2", "options.num_classes: this model has no options"),
        ("camvid", "model=espnetv2_s0_5", "is for classification, not segmentation"),
        ("camvid", "model=espnetv2_seg", "unknown model 'espnetv2_seg'"),
        ("camvid", "schedule.name=cyclic", "--set 'schedule={name: cyclic, ...}'"),
        ("camvid", "schedule.rte=1", "did you mean schedule.rate"),
        ("ptb", "clip=1", "clip=1.0: a language model is not trained so; it has language.clip"),
        ("ptb", "optimizer.name=adam", "it has language.rate and language.weight_decay"),
        ("ptb", "schedule={name: poly, rate: 0.1}", "it has language.rate"),
        ("ptb", "precision=16-mixed", "it has 32-true and bf16-mixed"),
        ("ptb", "ema=0.9", "it has language.trigger"),
        ("ptb", "options.foo=1", "it has the models eru_lm_7m and eru_lm_15m"),
        ("ptb", "accumulate=2", "accumulate=2: a language model is not trained so; leave it out"),
        ("ptb", "freeze_norm=frozen", "leave it out"),
        ("ptb", "early_stopping=2", "leave it out"),
        ("ptb", "stages=[{}]", "leave it out"),
    ],
)
def test_values_that_cannot_work_are_refused_in_one_line(base, change, words):
    with pytest.raises(UserError) as error:
        load_recipe(base, changes=[change])
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_the_least_values_that_work():
    changes = ["ema=0", "seed=4294967295", "language.trigger=0", "optimizer.momentum=0"]
    assert load_recipe("camvid", changes=changes).ema == 0


@pytest.mark.parametrize("text", ["6e-2", "6E-2", "+.6e-1", "6.e-2", "0.06"])
def test_numbers_without_a_point_are_numbers(text):
    options = load_recipe("bccd", changes=[f"options.smallest_prior={text}"]).options
    assert options == {"smallest_prior": 0.06}


def test_weights_are_taken_as_they_are_written():
    assert load_recipe("camvid", weights="runs/a #1: b/m").weights == "runs/a #1: b/m"


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


@pytest.mark.parametrize(
    ("asked", "device", "last"),
    [
        *((None, "cpu", False), (None, "cuda", True)),
        *((True, "cpu", True), (False, "cuda", False)),
    ],
)
def test_channels_are_last_on_a_gpu_unless_the_recipe_says_otherwise(asked, device, last):
    recipe = load_recipe("classify").model_copy(update={"channels_last": asked})
    assert channels_last(recipe, torch.device(device)) is last
