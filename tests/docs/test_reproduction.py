"""docs/reproduction.md is what the committed results say."""

import importlib.util
import json
import pathlib
import re
import shutil

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("tool", ROOT / "tools/write_reproduction.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_written_from_the_committed_results(tool):
    assert tool.PAGE.read_text(encoding="utf-8") == tool.page()


def test_another_result_would_change_the_page(tool, tmp_path):
    for path in (ROOT / "results").glob("reproduce_*.json"):
        shutil.copy(path, tmp_path)
    assert tool.page(tmp_path) == tool.page()
    path = tmp_path / "reproduce_table2.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    document["rows"][0]["shown"] = "1"
    path.write_text(json.dumps(document), encoding="utf-8")
    assert tool.page(tmp_path) != tool.page()


def test_every_linked_file_is_there(tool):
    page = tool.PAGE.read_text(encoding="utf-8")
    links = set(re.findall(r"\]\(([^)#]+)\)", page))
    assert any(link.endswith(".png") for link in links)
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
