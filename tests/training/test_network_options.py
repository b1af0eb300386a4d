"""What a network was built with stays with its weights, through every run that starts from them."""

import pytest
import torch

import tiny_sets
from espnetv2.errors import UserError
from espnetv2.models.catalog import entry
from espnetv2.predict.predictor import load
from espnetv2.tasks.priors import priors
from espnetv2.training.fit import train
from espnetv2.training.recipe import parse
from espnetv2.training.trainer import Run
from espnetv2.weights.files import Header, read_safetensors, write_safetensors

BOXES = {
    "task": "detection",
    "model": "espnetv2_ssd300_s0_5",
    "data": {
        "format": "voc-boxes",
        "convention": "edgenets-detection",
        "size": [64, 64],
        "batch_size": 2,
        "workers": 0,
    },
    "schedule": {"name": "cosine", "rate": 0.001},
}
MASKS = {
    "task": "segmentation",
    "model": "espnet_p2_q3",
    "data": {"format": "masks", "size": [32, 32], "batch_size": 2, "workers": 0},
    "schedule": {"name": "cosine", "rate": 0.001},
}


def run(recipe, data, out):
    train(parse(recipe, source="test"), Run(data=data, out=out, command="test", device="cpu"))
    return out / "model.safetensors"


@pytest.fixture
def cells(tmp_path):
    tiny_sets.voc_boxes(tmp_path / "cells", [("cat", 5, 6, 30, 30, 0)], count=3)
    return tmp_path / "cells"


def test_small_priors_are_used_wherever_boxes_are_decoded(cells, tmp_path):
    small = run(BOXES | {"options": {"smallest_prior": 0.05}}, cells, tmp_path / "small")
    again = run(BOXES | {"weights": str(small)}, cells, tmp_path / "again")
    for file in (small, again):
        looker = load(file)
        assert looker.model.smallest_prior == 0.05
        assert torch.equal(looker._priors, priors((64, 64), smallest=0.05))
    wide = run(
        BOXES | {"weights": str(small), "options": {"smallest_prior": 0.1}},
        cells,
        tmp_path / "wide",
    )
    assert load(wide).model.smallest_prior == 0.1


def test_another_form_of_a_network_stays_that_form(tmp_path):
    tiny_sets.masks(tmp_path / "scenes", values=(0, 1, 2, 255))
    options = {"num_classes": 3, "skip": "stem+image"}
    start = tmp_path / "start.safetensors"
    network = entry("espnet_p2_q3").build(**options)
    preprocessing = {"size": None}
    header = Header("espnet_p2_q3", options, ("a", "b", "c"), None, preprocessing)
    write_safetensors(network.state_dict(), header, start)
    kept = run(MASKS | {"weights": str(start)}, tmp_path / "scenes", tmp_path / "run")
    state, header = read_safetensors(kept)
    assert header.options["skip"] == "stem+image"
    assert state.keys() == network.state_dict().keys()
    load(kept)


def test_stages_of_two_widths_are_refused_before_anything_is_trained(cells, tmp_path):
    stages = [{}, {"model": "espnetv2_ssd512_s1_0"}]
    with pytest.raises(UserError, match="stage 2: weights of espnetv2_ssd300_s0_5: the backbone"):
        run(BOXES | {"stages": stages}, cells, tmp_path / "run")
    assert not (tmp_path / "run").exists()
