import json

import pytest
from typer.testing import CliRunner

import tiny_sets
from espnetv2.cli.data import data_app
from espnetv2.errors import UserError


def _run(*words):
    return CliRunner().invoke(data_app, [str(word) for word in words])


def test_sound_data_exits_with_nothing(tmp_path):
    root = tiny_sets.masks(tmp_path)
    result = _run("check", "--format", "masks", "--data", root)
    assert result.exit_code == 0
    assert result.stdout == "0 problem(s), 0 remark(s)\n"


def test_a_problem_exits_with_one_and_says_the_fix(tmp_path):
    root = tiny_sets.masks(tmp_path)
    tiny_sets.mask(root / "masks/train/1.png", size=(30, 40))
    result = _run("check", "--format", "masks", "--data", root)
    assert result.exit_code == 1
    assert "problem (size): " in result.stdout
    assert "; export it at the picture's size" in result.stdout


def test_many_of_a_kind_are_summed_up(tmp_path):
    root = tiny_sets.masks(tmp_path, count=15)
    for path in (root / "masks/train").iterdir():
        path.unlink()
        tiny_sets.mask(path, size=(30, 40))
    result = _run("check", "--format", "masks", "--data", root)
    assert "... and 5 more of size; --json lists all" in result.stdout


def test_json_is_one_document(tmp_path):
    root = tiny_sets.masks(tmp_path)
    (root / "masks/train/1.png").unlink()
    result = _run("check", "--format", "masks", "--data", root, "--json")
    document = json.loads(result.stdout)
    assert [row["kind"] for row in document["problems"]] == ["no-mask"]
    assert result.exit_code == 1


@pytest.mark.parametrize("command", ["check", "weights"])
def test_bad_input_is_the_users_mistake(tmp_path, command):
    result = _run(command, "--format", "mask", "--data", tmp_path)
    assert isinstance(result.exception, UserError)


def test_weights_are_printed_in_class_order(tmp_path):
    root = tiny_sets.masks(tmp_path, values=(0, 0, 1, 255))
    result = _run("weights", "--format", "masks", "--data", root)
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[1][-3:] == ["2,880", "66.667", "1.7572"]
    result = _run("weights", "--format", "masks", "--data", root, "--json")
    rows = json.loads(result.stdout)["classes"]
    assert [(row["class"], row["count"]) for row in rows] == [("class 0", 2880), ("class 1", 1440)]


@pytest.mark.parametrize("format", ["imagefolder", "voc-boxes", "coco-multilabel"])
def test_weights_of_other_formats(tmp_path, format):
    make = {
        "imagefolder": tiny_sets.imagefolder,
        "voc-boxes": tiny_sets.voc_boxes,
        "coco-multilabel": tiny_sets.coco,
    }[format]
    result = _run("weights", "--format", format, "--data", make(tmp_path))
    assert result.exit_code == 0
    assert "cat" in result.stdout
