"""The tables: printed counts come back, and every value leads to where it came from."""

import json
import pathlib
import re
import shlex

import pytest

from espnetv2.models.catalog import entry
from espnetv2.reproduce.catalog import CATALOG
from espnetv2.reproduce.sources import EVALUATIONS, Sources
from espnetv2.tasks.protocols import DEFAULTS, PROTOCOLS
from espnetv2.training.recipe import load_recipe
from espnetv2.weights.published import PUBLISHED

ROOT = pathlib.Path(__file__).resolve().parents[2]
QUICK = ("table1", "table2", "table3", "table4", "table5", "eq1", "fig4", "espnet")

OFF = {
    ("fig3", "MobileNetv1 0.25x, MACs"),
    ("fig3", "ShuffleNetv2 0.5x, MACs"),
    ("fig3", "ShuffleNetv2 1.0x, MACs"),
    ("fig3", "ShuffleNetv2 1.5x, MACs"),
    ("fig6", "ShuffleNetv2 1.5x, MACs"),
    ("fig7", "ENet, parameters"),
    ("fig7", "ERFNet, MACs"),
    ("fig7", "FCN-8s, MACs"),
    ("fig7", "PSPNet, parameters"),
    ("fig7", "PSPNet, MACs"),
    ("shufflenet-groups", "0.5x, g = 4, MACs"),
    ("shufflenet-groups", "0.5x, g = 8, MACs"),
    *(("shufflenet-groups", f"0.25x, g = {groups}, MACs") for groups in (1, 2, 3, 4, 8)),
    ("shufflenet-widths", "ShuffleNet 2x, g = 3, SE, MACs"),
}
"""Counts that do not come back: other people's networks (D95), ShuffleNet's widths (D20)."""


def committed():
    for name in CATALOG:
        path = ROOT / "results" / f"reproduce_{name}.json"
        yield name, json.loads(path.read_text(encoding="utf-8"))


def rows():
    return [(name, row) for name, document in committed() for row in document["rows"]]


@pytest.mark.parametrize("name", QUICK)
def test_printed_counts_come_back_to_the_digit(reports, name):
    counted = [row for row in reports(name).rows if row.how == "counted" and row.paper]
    assert counted
    for row in counted:
        assert row.gap.startswith("equal"), f"{row.what}: {row.gap}"


def test_only_these_counts_differ_from_print():
    found = {
        (name, row["what"])
        for name, row in rows()
        if row["how"] == "counted" and row["paper"] and not row["gap"].startswith("equal")
    }
    assert found == OFF


@pytest.mark.parametrize("name", [*QUICK, "detection"])
def test_the_committed_file_is_what_the_command_gives(reports, name):
    fresh = json.loads(json.dumps(reports(name).to_json()))
    path = ROOT / "results" / f"reproduce_{name}.json"
    assert json.loads(path.read_text(encoding="utf-8")) == fresh


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(CATALOG) - {*QUICK, "detection"}))
def test_every_other_committed_file_is_what_the_command_gives(reports, name):
    fresh = json.loads(json.dumps(reports(name).to_json()))
    document = json.loads((ROOT / f"results/reproduce_{name}.json").read_text(encoding="utf-8"))
    for left, right in zip(fresh["rows"], document["rows"], strict=True):
        assert left["what"] == right["what"]
        assert left["how"] == right["how"]
        if isinstance(left["ours"], float):  # gradients of random networks, other machines
            assert left["ours"] == pytest.approx(right["ours"], rel=0.1)
        else:
            assert left["ours"] == right["ours"]


def test_every_trained_or_measured_value_stands_in_the_file_that_it_links():
    checked = 0
    for name, row in rows():
        if row["how"] not in ("trained here at small scale", "measured here"):
            continue
        path, _, keys = row["evidence"].partition("#")
        value = json.loads((ROOT / path).read_text(encoding="utf-8"))
        if not keys:  # a ratio of two rows of the file
            assert row["what"].startswith("times faster"), (name, row["what"])
            continue
        for key in keys.split("/"):
            value = value[int(key)] if isinstance(value, list) else value[key]
        assert row["ours"] == pytest.approx(value, abs=1e-5), (name, row["what"])
        checked += 1
    assert checked >= 20


def test_every_score_of_released_weights_stands_in_the_record():
    record = json.loads((ROOT / EVALUATIONS).read_text(encoding="utf-8"))
    scored = [row for _, row in rows() if row["how"] == "official weights on real data"]
    assert scored
    for row in scored:
        values = record[row["evidence"].partition("#")[2]]["metrics"].values()
        found = {round(value, 4) for metrics in values for value in metrics.values()}
        assert round(row["ours"], 4) in found, row["what"]


def test_camvid_row_of_espnet_is_the_papers_to_a_hundredth():
    document = json.loads((ROOT / "results/reproduce_espnet.json").read_text(encoding="utf-8"))
    found = {row["what"]: row for row in document["rows"]}
    miou = found["p = 2, q = 8, CamVid test, mIoU"]
    recall = found["p = 2, q = 8, CamVid test, class average"]
    assert miou["paper"] == "55.64"
    assert miou["ours"] == pytest.approx(55.64, abs=0.01)
    assert recall["ours"] == pytest.approx(68.30, abs=0.01)


@pytest.mark.slow
@pytest.mark.data
def test_camvid_is_judged_where_data_and_weights_are_at_hand(shared, monkeypatch):
    monkeypatch.setenv("ESPNETV2_WEIGHTS", str(shared / "weights"))
    report = CATALOG["espnet"].report(Sources(shared / "data", None))
    found = {row.what: row for row in report.rows}
    row = found["p = 2, q = 8, CamVid test, mIoU"]
    assert row.how == "official weights on real data"
    assert row.ours == pytest.approx(55.64, abs=0.01)


def test_commands_of_rows_that_need_data_are_real():
    """Recipes, networks, weights, data sets, protocols and options exist."""
    commands = {
        row["evidence"].partition(": ")[2] for _, row in rows() if row["how"] == "needs data"
    }
    kinds = {}
    for command in commands:
        program, kind, *words = shlex.split(command)
        assert program == "espnetv2", command
        kinds[kind] = kinds.get(kind, 0) + 1
        check = {"train": _check_train, "eval": _check_eval, "benchmark": _check_benchmark}[kind]
        check(words, command)
    assert set(kinds) == {"train", "eval", "benchmark"}


def _options(words):
    """Pairs of an option and what follows it."""
    return [(w, words[i + 1]) for i, w in enumerate(words[:-1]) if w.startswith("--")]


def _check_train(words, command):
    changes = [value for option, value in _options(words) if option == "--set"]
    recipe = load_recipe(words[0], changes=changes)
    entry(recipe.model)
    for option, value in _options(words):
        assert option != "--weights" or value in PUBLISHED, command


def _check_eval(words, command):
    assert words[0] in PUBLISHED, command
    for option, value in _options(words):
        assert option != "--dataset" or value in DEFAULTS, command
        assert option != "--protocol" or value in PROTOCOLS, command


def _check_benchmark(words, command):
    against = dict(_options(words))["--against"]
    for name in (words[0], *against.split(",")):
        entry(name)


def test_without_a_clone_nothing_is_claimed():
    """An installed package has no results/: rows keep their evidence and have no value."""
    report = CATALOG["table3"].report(Sources(None, None))
    row = next(row for row in report.rows if row.how == "trained here at small scale")
    assert row.ours is None
    assert "in the repository" in row.note


def test_missing_data_and_record_leave_the_command():
    report = CATALOG["espnet"].report(Sources(None, None))
    row = next(row for row in report.rows if "CamVid test, mIoU" in row.what)
    assert (row.how, row.ours) == ("needs data", None)
    assert re.match(r"CamVid: espnetv2 eval espnet_p2_q8\.camvid ", row.evidence)


def test_missing_weights_leave_the_command_and_say_so(shared, monkeypatch, tmp_path):
    monkeypatch.setenv("ESPNETV2_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("ESPNETV2_CACHE", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    said = []
    report = CATALOG["espnet"].report(Sources(shared / "data", None, said.append))
    row = next(row for row in report.rows if "CamVid test, mIoU" in row.what)
    assert (row.how, row.ours) == ("needs data", None)
    assert any("espnet_p_2_q_8_camvid.pth" in line for line in said)
