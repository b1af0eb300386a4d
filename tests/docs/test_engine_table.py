"""Measured tables are those of the committed results."""

import importlib.util
import json
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def opened(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / f"tools/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tool():
    return opened("write_engine_table")


def test_the_page_shows_what_was_measured(tool):
    page = tool.PAGE.read_text(encoding="utf-8")
    document = json.loads(tool.RESULT.read_text(encoding="utf-8"))
    assert tool.written(page, document) == page
    document["rows"][0]["ms_median"] += 1
    assert tool.written(page, document) != page


def test_every_engine_is_measured_on_every_network(tool):
    rows = json.loads(tool.RESULT.read_text(encoding="utf-8"))["rows"]
    engines = {row["engine"] for row in rows}
    assert engines >= {"torch", "compile", "onnxruntime", "openvino", "executorch", "ncnn"}
    assert {(row["engine"], row["model"]) for row in rows} == {
        (engine, model) for engine in engines for model in tool.NAMES
    }
    for row in rows:
        assert row["difference"] <= 1e-4
        assert (row["precision"], row["threads"], row["size"]) == ("fp32", 2, [224, 224])
        assert 0 < row["ms_min"] <= row["ms_median"] <= row["ms_p95"]


def test_the_deploy_form_pays():
    """s = 2.0 at 224 on two threads, beside a plain export of the train form."""
    path = ROOT / "benchmarks/results/deploy_form.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    assert (document["model"], document["size"], document["threads"]) == ("espnetv2_s2_0", 224, 2)
    for runtime, least in (("onnxruntime", 1.7), ("openvino", 1.0)):
        found = document["runtimes"][runtime]
        rows = found["rows"]
        assert found["times_faster"] == round(rows["plain"]["ms_min"] / rows["ours"]["ms_min"], 3)
        assert found["times_faster"] >= least


def test_the_page_of_the_native_engine_shows_what_was_measured():
    tool = opened("write_native_table")
    page = tool.PAGE.read_text(encoding="utf-8")
    assert tool.written(page) == page
    assert page.count("| `espnetv2_") == 3 + 3 + 2


def test_the_native_engine_is_faster_than_all_others():
    """s = 2.0 at 224 on two threads: the fastest of a network of its cost, at either precision."""
    path = ROOT / "benchmarks/results/native_classifier.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    for precision in ("fp32", "bf16"):
        own = rows[f"espnetv2_s2_0 native {precision}"]
        for name, row in rows.items():
            if row["precision"] != precision or " native " in name:
                continue
            for time, factor in (("ms_min", 1.6), ("ms_median", 1.8)):  # of the same network
                assert row[time] >= own[time] * (factor if name.startswith("espnetv2") else 1)


def test_the_readme_shows_what_was_measured_and_published():
    tool = opened("write_readme_table")
    page = tool.PAGE.read_text(encoding="utf-8")
    assert tool.written(page) == page
    first_screen = page[: page.index("## ")]
    assert first_screen.count("| `espnetv2_") == len(tool.ROWS)
    assert "](docs/figures/overview.jpg)" in first_screen
    with pytest.raises(ValueError, match="lacks"):
        tool.written("no table")


def test_model_cards_are_those_of_the_package():
    tool = opened("write_model_cards")
    for page, table in ((tool.CARDS, tool.cards()), (tool.NAMES, tool.names())):
        text = page.read_text(encoding="utf-8")
        assert tool.written(text, table) == text
    cards = tool.CARDS.read_text(encoding="utf-8")
    for name in tool.PUBLISHED:
        assert cards.count(f"| `{name}` |") == 1
