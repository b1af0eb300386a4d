"""Every target of `espnetv2 export` and every engine, with what they can do."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from espnetv2.deploy.quiet import quiet
from espnetv2.errors import UserError, unknown
from espnetv2.extras import require


@dataclass(frozen=True)
class Target:
    """One format that networks are exported to.

    Attributes:
        module: With `convert` and, where int8 is possible, `rank_layers`; see `deploy.export`.
        extra: That brings the packages.
        needs: Packages, by import name.
        engine: That runs the artefact here; None where only other machines can.
        precisions: Offered; the first is the default.
        dynamic: Whether sides may be free.
        fold: Options of `deploy.fold.fold` that suit it.
        pixels: Type of pixels that go in, where normalisation is in the graph.
        advice: How to install the packages, where the pip line alone would mislead.
    """

    module: str
    extra: str
    needs: tuple[str, ...]
    engine: str | None
    precisions: tuple[str, ...]
    dynamic: bool = True
    fold: dict[str, Any] = field(default_factory=dict)
    pixels: str = "float32"
    advice: str = ""


_FAST = {"activation": "relu", "dense_below": 16}

TARGETS: dict[str, Target] = {
    "native": Target(
        "to_native", "native", ("espnetv2_native",), "native", ("fp32", "bf16", "int8")
    ),
    "onnx": Target(
        "to_onnx",
        "onnx",
        ("onnx", "onnxscript", "onnxruntime"),
        "onnxruntime",
        ("fp32", "fp16", "int8"),
        fold=_FAST,
        pixels="uint8",
    ),
    "openvino": Target(
        "to_openvino",
        "openvino",
        ("openvino",),
        "openvino",
        ("fp32", "fp16", "bf16", "int8"),
        fold=_FAST,
        pixels="uint8",
    ),
    "executorch": Target(
        "to_executorch", "executorch", ("executorch",), "executorch", ("fp32", "fp16", "int8")
    ),
    "ncnn": Target(
        "to_ncnn",
        "ncnn",
        ("ncnn", "pnnx", "onnx", "onnxscript"),
        "ncnn",
        ("fp32", "fp16"),
        dynamic=False,
    ),
    "coreml": Target("to_coreml", "coreml", ("coremltools",), None, ("fp16", "fp32", "int8")),
    "litert": Target(
        "to_litert",
        "litert",
        ("litert_torch", "ai_edge_quantizer"),
        "litert",
        ("fp32", "fp16", "int8"),
        dynamic=False,
        advice="in an environment of its own (docs/deploy/litert.md)",
    ),
}
"""Formats by the name that `--to` takes."""


@dataclass(frozen=True)
class EngineRow:
    """One runtime.

    Attributes:
        module: With the class `Engine` of the runtime, named in `kind`.
        kind: The class.
        target: The format that it reads; None for torch's own, which need the network.
        extra: That brings it.
        needs: Packages, by import name.
    """

    module: str
    kind: str
    target: str | None = None
    extra: str = ""
    needs: tuple[str, ...] = ()


ENGINES: dict[str, EngineRow] = {
    "native": EngineRow("engine_native", "NativeEngine", "native", "native", ("espnetv2_native",)),
    "torch": EngineRow("engine_torch", "TorchEngine"),
    "compile": EngineRow("engine_torch", "CompileEngine"),
    "cudagraph": EngineRow("engine_cudagraph", "CudaGraphEngine"),
    "onnxruntime": EngineRow(
        "engine_onnxruntime", "OnnxRuntimeEngine", "onnx", "onnx", ("onnxruntime",)
    ),
    "openvino": EngineRow(
        "engine_openvino", "OpenVinoEngine", "openvino", "openvino", ("openvino",)
    ),
    "executorch": EngineRow(
        "engine_executorch", "ExecuTorchEngine", "executorch", "executorch", ("executorch",)
    ),
    "ncnn": EngineRow("engine_ncnn", "NcnnEngine", "ncnn", "ncnn", ("ncnn",)),
    "litert": EngineRow(
        "engine_litert", "LiteRtEngine", "litert", "litert-runtime", ("ai_edge_litert",)
    ),
}
"""Runtimes by the name that `--engine` takes."""


def target(name: str) -> Target:
    """A row of `TARGETS`.

    Raises:
        UserError: No such target.
    """
    if name not in TARGETS:
        raise unknown("target", name, TARGETS)
    return TARGETS[name]


def converter(name: str) -> Any:
    """The module that makes a target's artefacts.

    Raises:
        UserError: No such target, or its packages are not installed (says the pip line).
    """
    row = target(name)
    with quiet(native=True):  # some packages talk while they are imported
        for package in row.needs:
            require(package, extra=row.extra, advice=row.advice)
    return import_module(f"espnetv2.deploy.{row.module}")


def engine_kind(name: str) -> Any:
    """The class of an engine.

    Raises:
        UserError: No such engine, or its packages are not installed (says the pip line).
    """
    if name not in ENGINES:
        raise unknown("engine", name, ENGINES)
    row = ENGINES[name]
    for package in row.needs:
        require(package, extra=row.extra)
    return getattr(import_module(f"espnetv2.deploy.{row.module}"), row.kind)


def computes_on(engine: str, device: str) -> str:
    """The device that an engine computes on, where `device` was asked for.

    CUDA graphs need a GPU, so "cpu", which is the default everywhere, is "cuda" for them.

    Raises:
        UserError: No such engine, or it does not run there.
    """
    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)
    if engine == "cudagraph":
        return "cuda" if device == "cpu" else device
    if device != "cpu" and ENGINES[engine].target is not None:
        own = ", ".join(name for name, row in ENGINES.items() if row.target is None)
        raise UserError(
            f"the engine {engine} runs on the CPU, not on {device}; those that do are {own}"
        )
    return device


def check_precision(name: str, precision: str) -> None:
    """Refuse a precision that a target does not offer.

    Raises:
        UserError: Says which ones it does.
    """
    offered = target(name).precisions
    if precision not in offered:
        raise UserError(f"{name} is not exported in {precision}; choose from {', '.join(offered)}")
