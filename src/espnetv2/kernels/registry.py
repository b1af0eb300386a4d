"""Makes functions operators of torch, under `torch.ops.espnetv2`.

By `torch.library.Library` and not by `custom_op`, whose operators import the compiler, for
seconds, when they first run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_LIBRARY = torch.library.Library("espnetv2", "FRAGMENT")  # type: ignore[no-untyped-call]
_TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order)


Function = Callable[..., Any]


@dataclass(frozen=True)
class Operator:
    """What torch must know of an operator.

    Attributes:
        compute: On any device.
        shapes: Empty outputs for inputs without values.
        backward: Of (context, gradients); without it, asking for a gradient is an error.
        remember: Of (context, inputs, output), what `backward` will need.
    """

    compute: Function
    shapes: Function
    backward: Function | None = None
    remember: Function | None = None


def register(operators: Mapping[str, Operator]) -> None:
    """Define operators, by schema."""
    for schema, one in operators.items():
        name = schema.partition("(")[0]
        _LIBRARY.define(schema, tags=_TAGS)  # type: ignore[no-untyped-call]
        _LIBRARY.impl(name, one.compute, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
        torch.library.register_fake(f"espnetv2::{name}", one.shapes, lib=_LIBRARY)
        torch.library.register_autograd(
            f"espnetv2::{name}",
            one.backward or _refuse(name),
            setup_context=one.remember,
            lib=_LIBRARY,
        )


def _refuse(name: str) -> Function:
    def backward(context: Any, *grads: Any) -> Any:
        raise RuntimeError(f"espnetv2::{name} has no gradient; it is for inference")

    return backward


def under_autocast(name: str, *, maps: int = 1) -> Function:
    """What an operator does under autocast: its first arguments, `maps`, become short."""
    operator = getattr(torch.ops.espnetv2, name)

    def short(x: Tensor | None, kind: str) -> Tensor | None:
        if x is None or x.dtype == torch.float64:
            return x
        return x.to(torch.get_autocast_dtype(kind))

    def run(x: Tensor, *others: Any) -> Any:
        kind = x.device.type
        given = [short(one, kind) for one in (x, *others)[:maps]]
        with torch.autocast(kind, enabled=False):
            return operator(*given, *others[maps - 1 :])

    return run


def autocast(operators: Mapping[str, Function]) -> None:
    """What operators do under autocast, by name."""
    for name, run in operators.items():
        for key in ("AutocastCPU", "AutocastCUDA"):
            _LIBRARY.impl(name, run, key)  # type: ignore[no-untyped-call]
