"""LiteRT, once TensorFlow Lite: one .tflite file for phones and small boards."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from espnetv2.deploy.conversion import Converted, Job
from espnetv2.deploy.forms_litert import for_litert
from espnetv2.deploy.litert_graph import join_prelus, ports, read, rename, write
from espnetv2.deploy.quiet import quiet
from espnetv2.deploy.sensitivity import worst_first
from espnetv2.deploy.tracing import Flat
from espnetv2.errors import UserError

FILE = "model.tflite"
_NOISY = ("root", "absl", "jax", "torch.utils._pytree", "torchao", "litert_torch")


def convert(job: Job, folder: Path) -> Converted:
    """Write `model.tflite`; see `deploy.conversion.Job`.

    Raises:
        UserError: Sizes are to stay free.
    """
    if job.dynamic:
        raise UserError("litert takes fixed sizes only; leave --dynamic out")
    packages = ["litert-torch", "litert-converter", "ai-edge-litert"]
    network = for_litert(job.network)
    content = to_file(network, job)
    if job.precision != "fp32":
        from espnetv2.deploy.litert_short import in_half, in_int8

        with quiet(*_NOISY, native=True):
            half = job.precision == "fp16"
            content = in_half(content) if half else in_int8(content, network, job)
        packages.append("ai-edge-quantizer")
    model = read(content)
    rename(model, job.input_names, job.output_names)
    model.description = " ".join(job.notes[key] for key in ("model", "task") if key in job.notes)
    folder.joinpath(FILE).write_bytes(write(model))
    graph = model.subgraphs[0]
    return Converted(
        files=(FILE,),
        inputs=ports(model, job.input_names, graph.inputs),
        outputs=ports(model, job.output_names, graph.outputs),
        versions={name: version(name) for name in packages},
    )


def rank_layers(job: Job, folder: Path) -> list[str]:
    """The layers that int8 hurts most, worst first."""
    return worst_first(for_litert(job.network), job.calibration)


def to_file(network: nn.Module, job: Job) -> bytes:
    """The file in float, with the converter's names.

    Args:
        network: The job's, in LiteRT's forms.
    """
    network = Flat(network).eval()
    with quiet(*_NOISY, native=True):
        import litert_torch

        with torch.no_grad():
            network(*job.inputs)  # some forms learn sizes from their first call
            content = litert_torch.convert(network, job.inputs).model_content()
    model = read(content)
    join_prelus(model)
    return write(model)
