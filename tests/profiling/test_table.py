"""A benchmark's rows as a table and as a drawing over the batch."""

import numpy as np
import pytest
from PIL import Image

from espnetv2.profiling.table import markdown, plot_batches

MACHINE = {"processor": "P", "cores": 2, "versions": {"torch": "2"}}
LOAD = {"gpu": "G", "utilisation": 61.25, "sm_mhz": 1980.0}
KERNELS = {"sm_active": 50.0, "memory_efficiency": None, "warp_execution_efficiency": 93.75}


def row(**values):
    usual = {"model": "net", "engine": "torch", "form": "deploy", "precision": "fp32"}
    usual |= {"size": [64, 64], "batch": 1, "threads": 1, "device": "cpu", "bytes": 1e6}
    usual |= {"ms_median": 2.0, "ms_p95": 3.0, "images_per_second": 500.0}
    return usual | {"peak_memory_bytes": 1e6, "difference": 0.0} | values


def cells(rows):
    table = markdown({"machine": MACHINE, "rows": rows})
    lines = [line.strip("| ").split(" | ") for line in table.splitlines() if line[:1] == "|"]
    return table, [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def test_without_a_question_there_is_no_column():
    table, (shown,) = cells([row()])
    assert "GPU" not in table
    assert "device" not in shown


def test_counters_have_columns_and_what_lacks_is_said_once_with_its_reason():
    reason = "not available (ncu: no)"
    given = [
        row(device="cuda", gpu_load=LOAD, gpu_kernels=KERNELS),
        row(device="cuda", gpu_load=LOAD, gpu_kernels=reason, ms_median=3.0),
        row(device="cuda", gpu_load=LOAD, gpu_kernels=reason, ms_median=4.0),
    ]
    table, shown = cells(given)
    assert [one["GPU %"] for one in shown] == ["61.2"] * 3
    assert [one["SM MHz"] for one in shown] == ["1980.0"] * 3
    assert [one["warp efficiency %"] for one in shown] == ["93.8", *["not available"] * 2]
    assert [one["memory efficiency %"] for one in shown] == ["not available"] * 3
    assert shown[0]["device"] == "cuda"
    assert table.count("GPU counters: not available (ncu: no)") == 1


@pytest.mark.parametrize(("batches", "drawn"), [((1, 4, 64), True), ((1,), False), ((2, 2), False)])
def test_latency_is_drawn_over_batches_where_there_are_several(tmp_path, batches, drawn):
    rows = [row(batch=batch, gpu_load=LOAD) for batch in batches]
    path = tmp_path / "batches.png"
    assert plot_batches(rows, path) is drawn
    assert path.exists() is drawn
    if drawn:
        assert np.asarray(Image.open(path).convert("L")).std() > 10  # not blank
