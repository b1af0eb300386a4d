"""Every training run that a GPU makes worth while, several at a time, to be resumed at will.

    python tools/train_all.py --data DATA [--jobs 6] [--only camvid] [--limit 2 --device cpu]

DATA holds camvid/, imagenette128/, bccd/ and ptb/. Each run has a folder under --out, goes on
where it stopped, and leaves its summary as results/<name>.json. On one GPU with 16 cores all of
it is meant to take less than 30 minutes; `--limit` rehearses it anywhere.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

SEEDS = (1, 2, 3)


@dataclass(frozen=True)
class Job:
    """One run: name of its result, recipe, folder below DATA, changes."""

    name: str
    recipe: str
    data: str
    changes: tuple[str, ...] = ()
    stages: bool = False


def jobs() -> list[Job]:
    """The list, longest first."""
    listed = [
        Job("ptb_eru_15m_gpu", "ptb-15m", "ptb", ("epochs=80",)),
        Job("ptb_eru_7m_gpu", "ptb", "ptb", ("epochs=100",)),
        Job("imagenette_s2_0", "imagenette", "imagenette128", ("model=espnetv2_s2_0",), True),
        Job(
            "bccd_ssd512_s2_0",
            "bccd",
            "bccd",
            (
                "model=espnetv2_ssd300_s2_0",
                "weights=null",
                "epochs=150",
                "data.batch_size=16",
                "stages=[{}, {model: espnetv2_ssd512_s2_0, data: {size: [512, 512]}, "
                "schedule: {name: cosine, rate: 0.001, warm_up: 3}, epochs: 60}]",
            ),
            True,
        ),
    ]
    for size in ("s2_0", "s1_0"):
        listed.append(
            Job(
                f"camvid_seg_{size}",
                "camvid",
                "camvid",
                (f"model=espnetv2_seg_{size}", "epochs=200"),
                True,
            )
        )
    # Paper: espnetv2 Table 4 (R1 to R4) and Table 5
    cyclic = "schedule={name: cyclic, minimum: 0.1, steps: [7, 14], factor: 0.1}"
    fixed = "schedule={name: steps, rate: 0.1, steps: [7, 14]}"
    rows = {
        "r1_no_fusion_no_shortcut": ("espnetv2_s1_0_no_fusion_no_shortcut", fixed),
        "r2_no_shortcut": ("espnetv2_s1_0_no_shortcut", fixed),
        "r3_full": ("espnetv2_s1_0", fixed),
        "r4_cyclic": ("espnetv2_s1_0", cyclic),
        "plain_s1_0": ("espnetv2_s1_0_plain_reduction", cyclic),
        "grouped_s0_5": ("espnetv2_s0_5", cyclic),
        "plain_s0_5": ("espnetv2_s0_5_plain_reduction", cyclic),
    }
    for seed in SEEDS:
        for row, (model, schedule) in rows.items():
            changes = (f"model={model}", schedule, f"seed={seed}", "epochs=20", "stages=[]")
            listed.append(Job(f"ablation_{row}_seed{seed}", "imagenette", "imagenette128", changes))
    return listed


def command(job: Job, options: argparse.Namespace) -> list[str]:
    """The `espnetv2 train` line of a job."""
    changes = list(job.changes)
    if options.limit:
        changes.append("epochs=1")
        if job.stages:
            changes.append("stages=[]")
    words = [sys.executable, "-m", "espnetv2", "train", job.recipe]
    words += ["--data", str(options.data / job.data), "--out", str(options.out / job.name)]
    words += ["--device", options.device, "--threads", "2", "--resume"]
    if options.limit:
        words += ["--limit", str(options.limit)]
    for change in changes:
        words += ["--set", change]
    return words


def run(job: Job, options: argparse.Namespace) -> tuple[str, bool, float]:
    """Train one; its log is beside its folder."""
    start = time.perf_counter()
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / f"{job.name}.log").open("a", encoding="utf-8") as log:
        done = subprocess.run(command(job, options), stdout=log, stderr=log, check=False)
    summary = options.out / job.name / "summary.json"
    if done.returncode == 0 and not options.limit:
        options.results.mkdir(parents=True, exist_ok=True)
        shutil.copy(summary, options.results / f"{job.name}.json")
    return job.name, done.returncode == 0, time.perf_counter() - start


def main() -> None:
    """Run what matches; exit with 1 if any failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--only", default="", help="part of a run's name")
    parser.add_argument("--jobs", type=int, default=6, help="runs at a time")
    parser.add_argument("--limit", type=int, help="batches an epoch, one epoch, no results")
    parser.add_argument("--device", default="gpu")
    options = parser.parse_args()
    chosen = [job for job in jobs() if options.only in job.name]
    failed = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for name, good, seconds in pool.map(lambda job: run(job, options), chosen):
            failed += not good
            line = {"run": name, "finished": good, "seconds": round(seconds, 1)}
            print(json.dumps(line), flush=True)
    if failed:
        raise SystemExit(f"{failed} of {len(chosen)} runs failed; see the logs in {options.out}")


if __name__ == "__main__":
    main()
