"""Trains a tiny language model; a program of its own, so that tests can kill it.

python language_run.py DATA OUT [--resume] [--epochs N] [--trigger N] [--die-in-save N]
"""

import argparse
import os
import pathlib
import signal
import time

import torch

from espnetv2.models.eru_lm import Layout
from espnetv2.training.language import LanguageModule, LanguageSettings
from espnetv2.training.language_fit import fit_language


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--die-in-save", type=int, help="SIGKILL halfway through this save")
    parser.add_argument("--pace", type=float, help="seconds to wait in every step")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.pace:
        wait(options.pace)
    if options.die_in_save:
        die_in(options.die_in_save)
    fit_language(
        tiny(options.data), out=options.out, resume=options.resume, device="cpu", checkpoint_steps=3
    )


def tiny(data, **changes):
    values = {
        "data": data,
        "layout": Layout(width=16, embedding=16, layers=2),
        "epochs": 5,
        "batch": 4,
        "eval_batch": 2,
        "bptt": 20,
        "lr": 20.0,
        "trigger": 0,  # a single worse epoch is enough
        "norm_segments": 3,
    }
    return LanguageSettings(**(values | changes))


def wait(seconds):
    """Leave time to be killed."""
    step = LanguageModule.training_step

    def slow(module, batch, batch_idx):
        time.sleep(seconds)
        return step(module, batch, batch_idx)

    LanguageModule.training_step = slow


def die_in(number):
    """Write half of the `number`-th checkpoint, then die."""
    import lightning.pytorch as L

    save, count = L.Trainer.save_checkpoint, 0

    def half(trainer, path, *arguments, **named):
        nonlocal count
        count += 1
        save(trainer, path, *arguments, **named)
        if count == number:
            os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    L.Trainer.save_checkpoint = half


if __name__ == "__main__":
    main()
