"""Core ML: an .mlpackage for Apple's CPUs, GPUs and neural engines."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim

from espnetv2.deploy.artefact import Port
from espnetv2.deploy.conversion import Converted, Job
from espnetv2.deploy.flat import Flat
from espnetv2.deploy.forms_xnnpack import for_xnnpack
from espnetv2.deploy.language_step import batch_axis
from espnetv2.deploy.quiet import quiet

FILE = "model.mlpackage"
SMALLEST_SIDE, LARGEST_SIDE, LARGEST_BATCH = 32, 2048, 8
"""Bounds of free sizes, which Core ML wants to know."""

_ROOMY = (320, 448)
_NOISY = ("coremltools", "torch.utils._pytree")


def convert(job: Job, folder: Path) -> Converted:
    """Write `model.mlpackage`; see `deploy.conversion.Job`.

    int8 is of the weights: finding ranges of activations needs Core ML's runtime, which only macOS
    has. Pictures for calibration are not looked at.
    """
    with quiet(*_NOISY, native=True):
        import coremltools

        model = _convert(coremltools, job)
        if job.precision == "int8":
            model = _with_short_weights(coremltools, model, job)
        _describe(model, job)
        model.save(str(folder / FILE))
    files = sorted(path for path in (folder / FILE).rglob("*") if path.is_file())
    files.sort(key=lambda path: path.name != "Manifest.json")
    outputs = job_outputs(job)
    return Converted(
        files=tuple(path.relative_to(folder).as_posix() for path in files),
        inputs=tuple(_port(job, n, x) for n, x in zip(job.input_names, job.inputs, strict=True)),
        outputs=tuple(_port(job, n, x) for n, x in zip(job.output_names, outputs, strict=True)),
        versions={"coremltools": version("coremltools")},
    )
