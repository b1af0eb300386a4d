"""The weights that come with the package are what their cards say."""

import json
import pathlib
import subprocess
import sys

import pytest

import espnetv2
from espnetv2.weights.fetch import file_sha256
from espnetv2.weights.published import PUBLISHED, SHIPPED

ROOT = pathlib.Path(__file__).parents[2]
OURS = {name: row for name, row in PUBLISHED.items() if row.shipped}
RESULTS = {
    "espnetv2_seg_s0_5.camvid": ("camvid_seg_s0_5.json", "mean_iou", "camvid", "camvid"),
    "espnetv2_s0_5.imagenette": ("imagenette_s0_5.json", "top1", "imagefolder", "imagenette128"),
}
"""Per name: the run's summary, the score in it, `eval --dataset`, the folder of real data."""


def test_folder_and_rows_agree_and_are_small():
    files = {path.name for path in SHIPPED.glob("*.safetensors")}
    assert files == {row.path for row in OURS.values()}
    assert set(OURS) == set(RESULTS)
    assert sum((SHIPPED / file).stat().st_size for file in files) < 3_000_000


@pytest.mark.parametrize("name", RESULTS)
def test_file_card_and_run_agree(name):
    row = OURS[name]
    assert file_sha256(SHIPPED / row.path) == row.sha256
    summary = json.loads((ROOT / "results" / RESULTS[name][0]).read_text(encoding="utf-8"))
    score = round(summary["metrics"][RESULTS[name][1]], 2)
    assert row.score == score
    card = (ROOT / "docs" / "models" / f"{name}.md").read_text(encoding="utf-8")
    assert f"{score:.2f}" in card
    assert summary["command"] in card
    assert summary["commit"][:7] in card


@pytest.mark.parametrize("name", RESULTS)
def test_it_loads_without_network_or_folders(name, monkeypatch, tmp_path):
    monkeypatch.setenv("ESPNETV2_CACHE", str(tmp_path))
    monkeypatch.delenv("ESPNETV2_WEIGHTS", raising=False)
    result = espnetv2.load(name)(ROOT / "examples" / "pictures" / "street.jpg")
    assert not list(tmp_path.iterdir())
    assert result.to_json()


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("name", RESULTS)
def test_the_score_is_reached_again(name, shared):
    _, score, dataset, folder = RESULTS[name]
    where = ("--dataset", dataset, "--data", str(shared / "data" / folder), "--split", "val")
    done = subprocess.run(
        [sys.executable, "-m", "espnetv2", "eval", name, *where, "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = json.loads(done.stdout)["scores"]
    assert any(abs(row["metrics"].get(score, 0) - OURS[name].score) < 0.05 for row in rows), rows
