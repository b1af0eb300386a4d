"""What CamVid's test score is in every engine, in fp32 and in int8 behind the gate.

    python benchmarks/camvid_engines.py --data CAMVID [--models ...] [--engines ...]

For each network and engine: the fp32 artefact's mIoU must be torch's to 0.01; then int8 is
exported behind a gate of half a point, on the same pictures. A refusal is a row too, with the
gate's words. Rows are written one by one; a later run replaces those it measures again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import nn

from espnetv2.data.preprocess import Preprocessing
from espnetv2.deploy.export import export
from espnetv2.deploy.gate import Gate, Judge
from espnetv2.deploy.opening import load_engine
from espnetv2.deploy.subject import Settings
from espnetv2.deploy.verify import pictures_in
from espnetv2.errors import UserError
from espnetv2.profiling.benchmark import machine
from espnetv2.weights.load import Loaded, load_network

MODELS = ("espnet_p2_q8.camvid", "espnetv2_seg_s0_5.camvid")
TARGETS = ("onnx", "openvino", "executorch")
SIZE = (360, 480)
SAME = 0.01  # points
POINTS = 0.5


@dataclass(frozen=True)
class Remembering(Gate):
    """A gate that measures a network in torch once, for all of its artefacts."""

    known: dict[str, float] = field(default_factory=dict)

    def score(
        self, network: Any, *, task: str, preprocessing: Preprocessing, classes: tuple[str, ...]
    ) -> float:
        """See `Gate`."""
        own: Callable[[], float] = lambda: super(Remembering, self).score(  # noqa: E731
            network, task=task, preprocessing=preprocessing, classes=classes
        )
        if not isinstance(network, nn.Module):
            return own()
        if "torch" not in self.known:
            self.known["torch"] = own()
        return self.known["torch"]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--engines", default=",".join(TARGETS))
    parser.add_argument("--split", default="test")
    parser.add_argument("--calibration", type=int, default=64, help="pictures of the train split")
    parser.add_argument("--limit", type=int, help="only the first pictures, to try it out")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/camvid_engines.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    for model in options.models.split(","):
        loaded = load_network(model)
        gate = Remembering(
            "miou", POINTS, Judge("camvid", options.data, options.split, options.limit)
        )
        gate.known.update(_known(options, model))
        before = gate.score(
            loaded.network,
            task=loaded.task,
            preprocessing=loaded.preprocessing.resized(SIZE),
            classes=loaded.classes,
        )
        _write(options, {"model": model, "engine": "torch", "precision": "fp32", "miou": before})
        for target in options.engines.split(","):
            for precision in ("fp32", "int8"):
                row = measure(loaded, target, precision, gate, before, options)
                _write(options, {"model": model, "engine": target, **row})


def measure(
    loaded: Loaded,
    target: str,
    precision: str,
    gate: Remembering,
    before: float,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """One artefact: its score, or why there is none."""
    start = time.perf_counter()
    whole = precision == "int8"
    settings = Settings(precision=precision, size=SIZE, gate=gate if whole else None)
    if whole:
        calm = pictures_in(options.data / "images" / "train", limit=options.calibration)
        settings = Settings(precision=precision, size=SIZE, gate=gate, calibration=calm)
    with tempfile.TemporaryDirectory() as place:
        try:
            made = export(loaded, target, Path(place) / target, settings)
        except UserError as error:
            return {"precision": precision, "refused": str(error)}
        if made.gate is not None:
            after = float(made.gate["after"])
        else:
            opened = load_engine(made.folder, threads=1)
            after = gate.score(
                opened.network,
                task=opened.task,
                preprocessing=opened.preprocessing,
                classes=opened.classes,
            )
    if precision == "fp32" and abs(after - before) > SAME:
        raise SystemExit(f"{loaded.name} in {target}: mIoU {after:.4f}, but {before:.4f} in torch")
    return {
        "precision": precision,
        "computes_in": made.computes_in,
        "miou": round(after, 4),
        "lost": round(before - after, 4),
        "float_layers": list(made.float_layers),
        "bytes": made.bytes,
        "difference": made.difference,
        "agreement": made.agreement,
        "refused": None,
        "seconds": round(time.perf_counter() - start, 1),
    }


def _known(options: argparse.Namespace, model: str) -> dict[str, float]:
    """What an earlier run of the same pictures has measured in torch."""
    if not options.out.is_file():
        return {}
    before = json.loads(options.out.read_text(encoding="utf-8"))
    if (before["split"], before["limit"]) != (options.split, options.limit):
        raise SystemExit(f"{options.out} is of other pictures; choose another --out")
    return {
        row["engine"]: row["miou"]
        for row in before["rows"]
        if row["model"] == model and row["engine"] == "torch"
    }


def _write(options: argparse.Namespace, row: dict[str, Any]) -> None:
    """The file with this row in the place of its predecessor."""
    print(json.dumps(row), flush=True)
    key = ("model", "engine", "precision")
    rows = []
    if options.out.is_file():
        rows = json.loads(options.out.read_text(encoding="utf-8"))["rows"]
    rows = [one for one in rows if [one[k] for k in key] != [row[k] for k in key]]
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    result = {
        "dataset": "camvid",
        "split": options.split,
        "limit": options.limit,
        "protocol": "void-ignored",
        "size": list(SIZE),
        "calibration_pictures": options.calibration,
        "gate": f"miou={POINTS}",
        "rows": sorted([*rows, row], key=lambda one: [one[k] for k in key]),
        **machine(),
        "date": date.today().isoformat(),
        "commit": commit,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
