"""`benchmarks/gpu.py` without a GPU: a rehearsal of every line, and what it may never print."""

import json
from importlib import import_module
from types import SimpleNamespace

import pytest
import torch

import fake_cuda
from espnetv2.layers import eesp
from kernels.emulator import emulate

CPU = torch.device("cpu")
GPU = torch.device("cuda")


@pytest.fixture
def rehearse(tmp_path, capsys):
    """Run the script on the CPU; gives exit code, document and what was printed."""

    def run(*words):
        out = tmp_path / "gpu.json"
        code = import_module("gpu").main(["--device", "cpu", "--quick", "--out", str(out), *words])
        printed = capsys.readouterr().out
        document = json.loads(out.read_text())
        return code, document, printed

    return run


def wrong_by_a_tenth(x, weight, dilations, stride):
    return 1.1 * import_module("gpu_check").reference.depthwise_pyramid(
        x, weight, dilations, stride
    )


def wrong_norm(x, weight, bias, slope=None, *, residual=None):
    return import_module("gpu_check")._layers(x, weight, bias * 2, slope, residual), None, None


def wrong_pointwise(x, weight, groups):
    return import_module("gpu_check").pointwise.grouped_pointwise(x, weight, groups).abs()


def test_kernels_that_differ_are_not_timed(rehearse, monkeypatch):
    check = import_module("gpu_check")
    monkeypatch.setattr(import_module("gpu"), "need_fused", lambda device: None)
    monkeypatch.setattr(check, "with_kernels", lambda network, *_, **__: network)
    monkeypatch.setattr(check, "depthwise_pyramid", wrong_by_a_tenth)
    monkeypatch.setattr(check, "norm_act", wrong_norm)
    monkeypatch.setattr(check, "grouped_pointwise", wrong_pointwise)
    code, document, printed = rehearse()
    assert code == 1, document["parts"]["check"]
    failures = document["parts"].pop("check")["failures"]
    assert any(line.startswith("output of float32") for line in failures)
    assert any(line.startswith("grad x of bfloat16") for line in failures)
    assert any(line.startswith("output of the norm of float32") for line in failures)
    assert any(line.startswith("output of the 1x1 of float32") for line in failures)
    assert any(line.startswith("grad bias of the norm of float16") for line in failures)
    assert set(document["parts"].values()) == {
        "not measured (the fused kernels differ from float64)"
    }
    assert {line[3] for line in document["table"]} == {""}
    assert "check: output of float32" in printed


def test_kernels_for_warps_are_checked_too(monkeypatch, tmp_path):
    """Emulated; on a GPU the same cases run in a process of their own first."""
    emulate(monkeypatch, tmp_path)
    check, deadline = import_module("gpu_check"), import_module("gpu_clock").Deadline(60)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    found = check.check_walk(CPU, deadline, few=True)
    assert (found["cases"], found["failures"]) == (4, [])
    assert set(found["worst"]) == {"bfloat16", "float16"}
    monkeypatch.setattr(check, "depthwise_pyramid", wrong_by_a_tenth)
    assert check.check_walk(CPU, deadline, few=True)["failures"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there the kernels run")
def test_kernels_for_warps_that_fail_are_left_out(monkeypatch):
    gpu = import_module("gpu")
    assert "give --device cpu" in gpu._walk_fails(GPU)
    monkeypatch.setattr(gpu, "WARMING", 0.01)  # a process that hangs
    assert gpu._walk_fails(GPU) == "not done after 0 s"


def test_without_time_nothing_is_timed_and_nothing_is_guessed(rehearse):
    code, document, printed = rehearse("--seconds", "0")
    timed = {name: part for name, part in document["parts"].items() if name != "check"}
    assert timed
    assert set(timed.values()) == {"not measured (no time left)"}
    assert {line[3] for line in document["table"]} == {""}
    assert {line[5] for line in document["table"]} == {"not measured"}
    assert code == 0
    assert "not measured (no time left)" in printed


def test_unchecked_kernels_have_no_figures(rehearse, monkeypatch):
    """Here no kernel runs, so none is checked; plain sides are timed all the same."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    code, document, _ = rehearse("--only", "street, batch 1", "--only", "pyramid")
    found = document["parts"]
    assert found["check"].startswith("not measured (The fused kernels do not run")
    assert found["pyramid"].startswith("not measured (the fused kernels were not checked")
    assert found["street, batch 1"]["fused, graph"].startswith("not measured")
    assert found["street, batch 1"]["plain"]["images_per_second"] > 0
    assert found["energy"] == "not measured (not asked for)"
    assert {line[3] for line in document["table"]} == {""}
    assert code == 0


@pytest.fixture
def operators(monkeypatch):
    """The fused operators on a CPU, where the reference computes them; and graphs of our own."""
    told = [SimpleNamespace(fused=one, notice="") for one in (False, True)]
    for module in (import_module("gpu_sides"), eesp):
        monkeypatch.setattr(module, "choose", lambda kernels, device: told[kernels == "fused"])
    fake_cuda.install(monkeypatch)


OPERATORS = ("pyramid", "norms", "pointwise")
PASSES = ("copy", *OPERATORS, "street, batch 1", "language", "energy", "counters")


@pytest.mark.parametrize(
    "words",
    [
        [word for name in PASSES for word in ("--only", name)],
        pytest.param(["--seconds", "9000"], marks=[pytest.mark.slow, pytest.mark.timeout(7200)]),
    ],
)
def test_a_rehearsal_walks_through_every_line(rehearse, operators, words):
    code, document, printed = rehearse(*words)
    found = document["parts"]
    assert found["check"]["failures"] == []
    for name in ("operator", "pointwise", "norms"):
        assert found["check"][name]["cases"] == found["check"][name]["of"] > 3
    for name in OPERATORS:
        assert found[name]["bytes_per_second"]["backward"] > 0
    assert found["language"]["seconds_per_epoch"] > 0
    comparisons = import_module("gpu_plan").COMPARISONS
    timed = [name for name in comparisons if isinstance(found[name], dict)]
    assert timed == (["street, batch 1"] if "--only" in words else list(comparisons))
    for name in timed:
        for side in found[name].values():
            assert side["images_per_second"] > 0
    for text, _, _, ratio, _, verdict in document["table"]:
        wanted = text.startswith(("pyramid", "norm", "pointwise")) or any(
            text.split(", images")[0] == n for n in timed
        )
        if wanted and "memory" not in text:  # which nobody counts on a CPU
            assert (ratio != "", verdict) == (True, "rehearsal"), text
    assert code == 0
    assert "these figures mean nothing" in printed.splitlines()[-2]


def test_a_missing_device_is_one_line(capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit) as ended:
        import_module("gpu").main(["--device", "cuda"])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: cuda: ")
