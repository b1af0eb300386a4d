"""ncnn: a .param text and a .bin of weights, for phones and small boards."""

from __future__ import annotations

import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path

import ncnn
import onnx
import pnnx
import torch
from torch import Tensor

from espnetv2.deploy.artefact import Port
from espnetv2.deploy.conversion import Converted, Job
from espnetv2.deploy.forms_ncnn import for_ncnn
from espnetv2.deploy.quiet import quiet
from espnetv2.deploy.tracing import Flat
from espnetv2.errors import UserError

OPSET = 18
PARAM, BIN = "model.ncnn.param", "model.ncnn.bin"
_NOISY = ("torch.onnx", "onnxscript", "onnx_ir", "root")
_DECODING = {
    "mask": "ncnn gives floats, no class map",
    "boxes": "ncnn has nothing that chooses the best boxes",
}


def convert(job: Job, folder: Path) -> Converted:
    """Write `model.ncnn.param` and `model.ncnn.bin`; see `deploy.conversion.Job`.

    torch.export -> ONNX -> pnnx, which is ncnn's own converter. No TorchScript takes part.

    ncnn has no batch: the artefact takes one picture, and larger batches are several calls.
    Weights are stored in float32, other than pnnx does if left alone, unless fp16 is asked for.

    Raises:
        UserError: ncnn lacks something that the network needs; names it.
    """
    _check(job)
    inputs = tuple(one[:1] for one in job.inputs)
    network = Flat(for_ncnn(job.network)).eval()
    with torch.no_grad():
        outputs = network(*inputs)
    with tempfile.TemporaryDirectory() as place:
        source = Path(place) / "model.onnx"
        onnx.save(_graph(network, inputs, job), source)
        _translate(source, folder, half=job.precision == "fp16")
    ports_in = tuple(map(_port, job.input_names, inputs))
    ports_out = tuple(map(_port, job.output_names, outputs))
    _tidy(folder / PARAM, ports_in, ports_out)
    return Converted(
        files=(PARAM, BIN),
        inputs=ports_in,
        outputs=ports_out,
        versions={name: version(name) for name in ("ncnn", "onnx", "onnxscript", "pnnx")},
        opset=OPSET,
    )


def _check(job: Job) -> None:
    if any(one.dim() != 4 for one in job.inputs):
        raise UserError(
            "ncnn: a language model's step cannot be converted; use --to onnx, openvino or "
            "executorch"
        )
    for name, reason in _DECODING.items():
        if name in job.output_names:
            raise UserError(f"{reason}; leave --output raw and decode what it gives")


def _graph(network: Flat, inputs: tuple[Tensor, ...], job: Job) -> onnx.ModelProto:
    with quiet(*_NOISY):
        program = torch.onnx.export(
            network,
            inputs,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(job.input_names),
            output_names=list(job.output_names),
            external_data=False,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def _translate(source: Path, folder: Path, *, half: bool) -> None:
    """Run pnnx, which writes more files than asked for, beside its source."""
    command = [
        pnnx.EXEC_PATH,
        source.name,
        f"fp16={int(half)}",
        f"ncnnparam={folder.resolve() / PARAM}",
        f"ncnnbin={folder.resolve() / BIN}",
    ]
    done = subprocess.run(
        command, cwd=source.parent, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode or not all((folder / name).is_file() for name in (PARAM, BIN)):
        said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise UserError(
            f"pnnx cannot convert this network (exit code {done.returncode}: {said}); choose "
            "another target"
        )


def _tidy(path: Path, inputs: tuple[Port, ...], outputs: tuple[Port, ...]) -> None:
    """Call the ports by their names, and see that ncnn has every layer."""
    names = {f"in{place}": port.name for place, port in enumerate(inputs)}
    names |= {f"out{place}": port.name for place, port in enumerate(outputs)}
    magic, counts, *lines = path.read_text(encoding="utf-8").splitlines()
    found, lacking, written = set(), set(), [magic, counts]
    for line in lines:
        kind, name, below, above, *rest = line.split()
        if ncnn.create_layer(kind) is None:
            lacking.add(kind)
        blobs = int(below) + int(above)
        renamed = [names.get(blob, blob) for blob in rest[:blobs]]
        found.update(renamed)
        written.append(" ".join((kind, name, below, above, *renamed, *rest[blobs:])))
    if lacking:
        raise UserError(
            f"ncnn has no layer for {', '.join(sorted(lacking))}, which this network needs; "
            "choose another target"
        )
    lost = set(names.values()) - found
    if lost:
        raise UserError(
            f"pnnx lost {', '.join(sorted(lost))} of this network; choose another target"
        )
    path.write_text("\n".join(written) + "\n", encoding="utf-8")


def _port(name: str, x: Tensor) -> Port:
    return Port(name, tuple(x.shape), str(x.dtype).removeprefix("torch."))
