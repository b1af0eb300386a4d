"""ExecuTorch: one .pte file, computed by XNNPACK on the CPUs of phones and small boards."""

from __future__ import annotations

from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram

from espnetv2.deploy.conversion import Converted, Job
from espnetv2.deploy.forms_xnnpack import for_xnnpack, rewrite
from espnetv2.deploy.quiet import quiet
from espnetv2.deploy.sensitivity import LAYERS, worst_first
from espnetv2.deploy.tracing import (
    Flat,
    layer_of,
    ports,
    simplify_slices,
    smallest_side,
    trace,
)

FILE = "model.pte"
SMALLEST = "smallest_side"
"""Method of a dynamic artefact, without arguments; see `tracing.smallest_side`."""

_KINDS = (
    torch.ops.aten.conv2d.default,
    torch.ops.aten.conv_transpose2d.input,
    torch.ops.aten.linear.default,
)
_NOISY = ("torch.utils._pytree", "torchao", "executorch", "root")


def convert(job: Job, folder: Path) -> Converted:
    """Write `model.pte`; see `deploy.conversion.Job`."""
    with quiet(*_NOISY):
        program = prepare(job)
        manager = lower(program, dynamic=job.dynamic)
        folder.joinpath(FILE).write_bytes(manager.to_executorch().buffer)
    inputs, outputs = ports(program, job)
    return Converted(
        files=(FILE,),
        inputs=inputs,
        outputs=outputs,
        versions={name: version(name) for name in ("executorch", "torchao")},
    )


def rank_layers(job: Job, folder: Path) -> list[str]:
    """The layers that int8 hurts most, worst first."""
    return worst_first(for_xnnpack(job.network), job.calibration)


def prepare(job: Job) -> ExportedProgram:
    """The traced network, in forms that XNNPACK has and in the job's precision."""
    form = for_xnnpack(job.network)
    layers = {name for name, part in form.named_modules() if isinstance(part, LAYERS)}
    graph_module = trace(Flat(form, half=job.precision == "fp16").eval(), job).module()
    assert isinstance(graph_module, fx.GraphModule)
    simplify_slices(graph_module)
    rewrite(graph_module)
    if job.precision == "int8":
        graph_module = _quantise(graph_module, job, layers - set(job.float_layers))
    return trace(graph_module, job)


def lower(program: ExportedProgram, *, dynamic: bool) -> Any:
    """ExecuTorch's edge program, with all that XNNPACK can do handed to it."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower

    return to_edge_transform_and_lower(
        program,
        partitioner=[XnnpackPartitioner()],
        constant_methods={SMALLEST: smallest_side(program)} if dynamic else None,
        compile_config=EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=True),
    )


def left_over(manager: Any) -> Counter[str]:
    """Operators that XNNPACK does not compute, by name; "delegate" counts its pieces."""
    found: Counter[str] = Counter()
    for node in manager.exported_program().graph.nodes:
        if node.op == "call_function":
            name = getattr(node.target, "__name__", str(node.target))
            found["delegate" if "delegate" in name else name] += 1
    del found["getitem"]
    return found


def _quantise(graph_module: fx.GraphModule, job: Job, layers: set[str]) -> fx.GraphModule:
    """int8 for layers alone: sums and what else lies between them stay in float.

    With sums, products and concatenations in int8 too, which XNNPACK can do, the released CamVid
    network loses 5 points of mIoU.
    """
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    config = get_symmetric_quantization_config(is_per_channel=True)
    quantizer = XNNPACKQuantizer()
    for kind in _KINDS:
        quantizer.set_operator_type(kind, config)
    quantizer.set_filter_function(  # it is asked about weights too
        lambda node: node.op != "call_function" or layer_of(node) in layers
    )
    observed = prepare_pt2e(graph_module, quantizer)
    with torch.no_grad():
        for image in job.calibration:
            observed(torch.from_numpy(image))
    quantised: fx.GraphModule = convert_pt2e(observed)
    return quantised
