"""`espnetv2 reproduce` on the command line."""

import json

import pytest
from typer.testing import CliRunner

from espnetv2 import extras
from espnetv2.cli.app import app
from espnetv2.errors import UserError
from espnetv2.reproduce.catalog import CATALOG


def run(*words):
    return CliRunner().invoke(app, ["reproduce", *words])


def test_without_a_name_it_lists_all():
    done = run()
    assert done.exit_code == 0
    assert all(f"\n{name} " in done.output for name in CATALOG)


def test_prints_paper_ours_gap_and_origin():
    done = run("eq1", "table3")
    assert done.exit_code == 0
    assert "gap  how ours came to be" in done.output
    line = next(line for line in done.output.splitlines() if line.startswith("ERU, small, test"))
    assert "73.63" in line
    assert "129.35" in line
    assert "trained here at small scale (results/ptb_eru_7m.json#" in line


def test_json_is_one_document():
    done = run("eq1", "--json")
    (document,) = json.loads(done.stdout)
    assert document["name"] == "eq1"
    assert [row["ours"] for row in document["rows"]][:3] == [0.5, 0.4, 0.3]


def test_out_gets_json_markdown_and_figures(tmp_path):
    folder = tmp_path / "new" / "folder"
    assert run("fig4", "table5", "--out", str(folder)).exit_code == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        *(f"reproduce_fig4.{ending}" for ending in ("json", "md", "png", "svg")),
        *(f"reproduce_table5.{ending}" for ending in ("json", "md")),
    ]
    again = tmp_path / "again"
    run("fig4", "--out", str(again))
    for ending in ("png", "svg"):  # the same figure gives the same file
        name = f"reproduce_fig4.{ending}"
        assert (folder / name).read_bytes() == (again / name).read_bytes()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["tabel2"], "unknown table or figure 'tabel2'; did you mean table2"),
        (["figure4"], "did you mean fig4"),
        (["eq1", "--data", "nowhere"], "--data nowhere is no folder"),
    ],
)
def test_a_mistake_is_one_line(words, expected, monkeypatch):
    done = run(*words)
    assert isinstance(done.exception, UserError)
    assert expected in str(done.exception)
    assert "\n" not in str(done.exception)


def test_missing_matplotlib_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    def missing(module):
        raise ModuleNotFoundError(f"No module named {module!r}", name="matplotlib")

    monkeypatch.setattr(extras.importlib, "import_module", missing)
    done = run("fig4", "--out", str(tmp_path / "out"))
    assert isinstance(done.exception, UserError)
    assert 'pip install "espnetv2[plots]"' in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_out_that_is_a_file_is_refused(tmp_path):
    file = tmp_path / "out"
    file.write_text("mine", encoding="utf-8")
    assert "is a file; give a folder" in str(run("eq1", "--out", str(file)).exception)
    assert file.read_text(encoding="utf-8") == "mine"
