"""`--kernels`: the same results, and one line where the fused kernels cannot run."""

import json

import pytest
import torch
from typer.testing import CliRunner

import tiny_sets
from espnetv2.cli.app import app
from espnetv2.errors import UserError

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")

WORDS = {
    "predict": ("espnetv2_s0_5.imagenette", "{folder}/train/cat", "--engine", "torch", "--json"),
    "train": (
        *("classify", "--data", "{folder}", "--limit", "1", "--set", "epochs=1", "--json"),
        *("--set", "data.size=[32,32]", "--set", "data.workers=0", "--device", "cpu"),
    ),
    "benchmark": ("espnetv2_s0_5", "--size", "32x32", "--seconds", "0.01", "--json"),
}
NOTICE = "The fused kernels do not run (cpu is no GPU of CUDA); the plain layers give the same"


def run(command, folder, kernels):
    words = [word.format(folder=folder) for word in WORDS[command]]
    out = ["--out", str(folder / f"{command}-{kernels}")]
    result = CliRunner().invoke(app, [command, *words, *out, "--kernels", kernels])
    if result.exception is not None and not isinstance(result.exception, UserError):
        raise result.exception
    return result


@pytest.mark.parametrize(
    "command", ["predict", "train", pytest.param("benchmark", marks=pytest.mark.slow)]
)
def test_fused_kernels_without_a_gpu_are_one_notice(command, tmp_path):
    tiny_sets.imagefolder(tmp_path)
    told = {kernels: run(command, tmp_path, kernels) for kernels in ("fused", "auto")}
    assert told["fused"].stderr.count(NOTICE) == 1
    assert "kernels" not in told["auto"].stderr
    fused, auto = (json.loads(told[kernels].stdout) for kernels in ("fused", "auto"))
    if command == "benchmark":
        assert [row["kernels"] for row in fused["rows"] + auto["rows"]] == ["fused", "auto"]
    elif command == "predict":
        assert fused["results"] == [
            {**one, "files": mine["files"]}
            for one, mine in zip(auto["results"], fused["results"], strict=True)
        ]
    else:
        assert fused["metrics"] == auto["metrics"]


@pytest.mark.parametrize("command", WORDS)
def test_unknown_kernels_are_refused(command, tmp_path):
    tiny_sets.imagefolder(tmp_path)
    found = run(command, tmp_path, "fast").exception
    assert str(found) == "kernels 'fast' is unknown; choose reference, fused or auto"
