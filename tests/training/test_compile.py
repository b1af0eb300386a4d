"""Training steps that are compiled."""

import pytest
import torch
from torch import nn
from torch._inductor.exc import InvalidCxxCompiler

import tiny_sets
from espnetv2.errors import UserError
from espnetv2.training.fit import train
from espnetv2.training.mishaps import one_line
from espnetv2.training.recipe import load_recipe, parse
from espnetv2.training.trainer import Run

RECIPE = {
    "task": "segmentation",
    "model": "espnetv2_seg_s0_5",
    "data": {"size": [32, 32], "batch_size": 2, "workers": 0, "format": "masks"},
    "schedule": {"name": "cosine", "rate": 0.01},
    "epochs": 2,
    "compile": "default",
}


def run(folder, **changes):
    place = Run(data=folder / "data", out=folder / "run", command="t", device="cpu")
    return train(parse(RECIPE | changes, source="test"), place)


def test_whole_batches_of_training_are_compiled(tmp_path, monkeypatch):
    """Neither an epoch's rest nor validation, which would be compiled for themselves."""
    tiny_sets.masks(tmp_path / "data", count=5)
    seen = []

    class Compiled(nn.Module):
        def __init__(self, network, *, mode):
            super().__init__()
            assert mode == "reduce-overhead"
            self.network = network

        def forward(self, images):
            seen.append(len(images))
            return self.network(images)

    monkeypatch.setattr(torch, "compile", Compiled)
    run(tmp_path, compile="reduce-overhead")
    assert seen == [2, 2] * 2


@pytest.mark.slow
def test_compiled_steps_learn_the_same(tmp_path):
    losses = []
    for number, mode in enumerate(("no", "default")):
        folder = tmp_path / str(number)
        tiny_sets.masks(folder / "data", count=4)
        run(folder, compile=mode)
        table = (folder / "run/history.csv").read_text().splitlines()
        place = table[0].split(",").index("loss")
        losses.append([float(row.split(",")[place]) for row in table[1:]])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_a_bare_no_is_off():
    assert parse(RECIPE | {"compile": False}, source="test").compile == "no"


@pytest.mark.parametrize(
    ("recipe", "changes", "words"),
    [
        ("imagenette", ["quantize.to=int8"], "rounding for int8 looks into the network"),
        ("ptb", [], "a language model is not trained so"),
        ("camvid", ["compile=fast"], "compile: Input should be 'no', 'default'"),
    ],
)
def test_what_cannot_be_compiled_is_refused(recipe, changes, words):
    with pytest.raises(UserError, match=words):
        load_recipe(recipe, changes=["compile=default", *changes])


def test_a_compiler_that_fails_is_one_line():
    recipe = parse(RECIPE, source="test")
    with pytest.raises(UserError) as told, one_line(recipe):
        raise InvalidCxxCompiler
    assert str(told.value).startswith("compile=default: No working C++ compiler found")
    assert str(told.value).endswith("; leave it out, or choose another mode")
