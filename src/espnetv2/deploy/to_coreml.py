"""Core ML: an .mlpackage for Apple's CPUs, GPUs and neural engines."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from torch import fx
from torch.export import ExportedProgram

from espnetv2.deploy.artefact import Port
from espnetv2.deploy.conversion import Converted, Job
from espnetv2.deploy.forms_xnnpack import for_xnnpack
from espnetv2.deploy.quiet import quiet
from espnetv2.deploy.tracing import (
    LARGEST_BATCH,
    LARGEST_SIDE,
    Flat,
    ports,
    simplify_slices,
    smallest_side,
    trace,
)
from espnetv2.errors import UserError

FILE = "model.mlpackage"
_FOREIGN = "executorch_debug_handle_mapping.json"  # no part of a package
_SMALLEST_SIDE = 32
_NOISY = ("coremltools", "torch.utils._pytree")


def convert(job: Job, folder: Path) -> Converted:
    """Write `model.mlpackage`, a folder; see `deploy.conversion.Job`.

    int8 is of the weights: finding the ranges of activations needs Core ML's runtime, which only
    macOS has. So calibration pictures are not looked at, and all layers are treated alike.

    Raises:
        UserError: Core ML has not what the network needs for free sizes.
    """
    with quiet(*_NOISY, native=True):
        import coremltools

        form = trace(Flat(for_xnnpack(job.network)).eval(), job).module()
        assert isinstance(form, fx.GraphModule)
        simplify_slices(form)
        program = trace(form, job).run_decompositions({})
        inputs, outputs = ports(program, job)
        model = _model(coremltools, program, inputs, outputs, job)
        if job.precision == "int8":
            model = _with_short_weights(coremltools, model)
        _describe(model, job)
        named = model.get_spec().description.predictedProbabilitiesName
        if named:  # a classifier's shares are renamed by Core ML
            outputs = (replace(outputs[0], name=named),)
        model.save(str(folder / FILE))
    (folder / FILE / _FOREIGN).unlink(missing_ok=True)
    files = [path for path in (folder / FILE).rglob("*") if path.is_file()]
    files.sort(key=lambda path: (path.name != "Manifest.json", path))
    return Converted(
        files=tuple(path.relative_to(folder).as_posix() for path in files),
        inputs=inputs,
        outputs=outputs,
        versions={"coremltools": version("coremltools")},
    )


def _model(
    coremltools: Any,
    program: ExportedProgram,
    inputs: tuple[Port, ...],
    outputs: tuple[Port, ...],
    job: Job,
) -> Any:
    precision = coremltools.precision
    try:
        return coremltools.convert(
            program,
            convert_to="mlprogram",
            minimum_deployment_target=coremltools.target.iOS16,
            compute_precision=precision.FLOAT32 if job.precision == "fp32" else precision.FLOAT16,
            inputs=[_input(coremltools, port, smallest_side(program)) for port in inputs],
            outputs=[
                coremltools.TensorType(name=port.name, dtype=_dtype(port)) for port in outputs
            ],
            classifier_config=_labels(coremltools, job),
            skip_model_load=True,
        )
    except (NotImplementedError, RuntimeError, ValueError) as error:
        if not job.dynamic:
            raise
        reason = str(error).splitlines()[0]
        raise UserError(
            f"Core ML cannot compute this network for any size ({reason}); give --size HxW "
            "instead of --dynamic"
        ) from error


def _input(coremltools: Any, port: Port, smallest: int) -> Any:
    smallest = max(smallest, _SMALLEST_SIDE)
    ranges = {
        "batch": coremltools.RangeDim(1, LARGEST_BATCH, default=1),
        "height": coremltools.RangeDim(smallest, LARGEST_SIDE, default=256),
        "width": coremltools.RangeDim(smallest, LARGEST_SIDE, default=256),
    }
    shape = tuple(side if isinstance(side, int) else ranges[side] for side in port.shape)
    if port.name == "pixels" and port.shape[0] == 1:  # so that apps give pictures, not arrays
        layout = coremltools.colorlayout.RGB
        return coremltools.ImageType(name=port.name, shape=shape, color_layout=layout)
    return coremltools.TensorType(name=port.name, shape=shape, dtype=_dtype(port))


def _dtype(port: Port) -> Any:
    """Core ML's ports are of 32 bits, also where it computes in fewer."""
    return np.float32 if port.dtype.startswith("float") else np.int32


def _labels(coremltools: Any, job: Job) -> Any:
    """Class names, where the only output is a probability for each of them."""
    classes = job.notes.get("classes", "").splitlines()
    if job.output_names != ("probabilities",) or not classes or job.inputs[0].shape[0] != 1:
        return None
    return coremltools.ClassifierConfig(classes, predicted_feature_name="class")


def _with_short_weights(coremltools: Any, model: Any) -> Any:
    tools = coremltools.optimize.coreml
    rule = tools.OpLinearQuantizerConfig(mode="linear_symmetric", dtype="int8")  # per channel
    return tools.linear_quantize_weights(model, tools.OptimizationConfig(global_config=rule))


def _describe(model: Any, job: Job) -> None:
    names = [name for name in ("model", "task", "source") if job.notes.get(name)]
    model.short_description = " ".join(job.notes[name] for name in names[:2])
    model.user_defined_metadata.update({name: text for name, text in job.notes.items() if text})
