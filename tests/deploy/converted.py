"""What tests of one target share: a job, the engine of what came of it, and a comparison."""

import json

import numpy as np
import torch

from deploy.lively import parts
from espnetv2.deploy.artefact import FILE, Artefact, hashes_of, size_of
from espnetv2.deploy.conversion import Job
from espnetv2.deploy.fold import fold
from espnetv2.deploy.outputs import NAMES
from espnetv2.deploy.targets import TARGETS, converter, engine_kind
from espnetv2.deploy.verify import drawn_pictures

FAMILIES = [
    "espnetv2_s0_5",
    "espnetv2_seg_s0_5",
    "espnetv2_seg_arxiv_s0_5",
    "espnetv2_ssd300_s0_5",
    "espnet_c_p2_q3",
    "espnet_p2_q3",
    "shufflenetv1_g3_x0_5",
]


def folded(target, network):
    return fold(network, **TARGETS[target].fold)


def job_of(target, network, *, task, size=(97, 131), batch=1, **options):
    images = torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(7))
    return Job(folded(target, network), (images,), ("image",), NAMES[task], **options)


def made(target, job, folder, *, threads=1):
    """What the target's module says of the files, and the engine that runs them."""
    done = converter(target).convert(job, folder)
    artefact = Artefact(
        target=target,
        folder=folder,
        files=done.files,
        model="m",
        task="language" if job.input_names[0] == "tokens" else "classification",
        classes=(),
        palette=None,
        preprocessing={},
        options={},
        precision=job.precision,
        takes="input",
        gives="raw",
        inputs=done.inputs,
        outputs=done.outputs,
        dynamic=job.dynamic,
        bytes=size_of(folder, done.files),
    )
    return done, engine_kind(TARGETS[target].engine)(artefact, threads=threads)


def difference(network, engine, *inputs):
    """Largest, of any output, relative to that output's largest value."""
    with torch.inference_mode():
        truth = [one.numpy() for one in parts(network(*inputs))]
    found = engine.run(*(one.numpy() for one in inputs))
    assert [one.shape for one in truth] == [one.shape for one in found]
    return max(
        float(np.abs(one - other).max() / np.abs(one).max())
        for one, other in zip(truth, found, strict=True)
    )


def agreement(network, engine, *inputs, class_axis=1):
    """Share of equal arg-max decisions."""
    with torch.inference_mode():
        truth = parts(network(*inputs))[0].numpy()
    return (
        truth.argmax(class_axis) == engine.run(*map(np.asarray, inputs))[0].argmax(class_axis)
    ).mean()


def calibration(loaded, size, count=4):
    spec = loaded.preprocessing.resized(size)
    return [spec(picture)[None].numpy() for picture in drawn_pictures(count, size)]


def restate(folder):
    """Make `export.json` say of the files what they now are."""
    file = folder / FILE
    said = json.loads(file.read_text())
    files = tuple(said["files"])
    said |= {"bytes": size_of(folder, files), "sha256": hashes_of(folder, files)}
    file.write_text(json.dumps(said))
