"""The fused operators alone, on the maps of a network, each byte counted once a pass."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from types import MappingProxyType
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from gpu_clock import recorded
from gpu_parts import Plan
from gpu_sides import Side
from torch import Tensor, nn

from espnetv2.errors import UserError
from espnetv2.kernels.depthwise_pyramid import depthwise_pyramid, walk
from espnetv2.kernels.grouped_pointwise import grouped_pointwise
from espnetv2.kernels.norm_act import norm_act
from espnetv2.layers.eesp import EESP
from espnetv2.profiling.benchmark import network_of

WAYS = ("forward", "backward")


def pyramid(model: str, batch: int, size: tuple[int, int], plan: Plan) -> dict[str, Any]:
    """The pyramid on every EESP unit's reduced map.

    Forward reads the map and writes the branches; backward reads both and writes the map's
    gradient. Backward is forward and backward less forward.
    """
    rows = []
    for (shape, dilations, stride), units in _maps(model, batch, size, plan).items():
        row: dict[str, Any] = {"shape": list(shape), "dilations": list(dilations)}
        row |= {"stride": stride, "units": units}
        rows.append(row | timed_pyramid(shape, dilations, stride, plan))
    return {"rows": rows, "bytes_per_second": _rates(rows)}


def norms(model: str, batch: int, size: tuple[int, int], plan: Plan) -> dict[str, Any]:
    """Norm, residual and PReLU on the map that every EESP unit gives.

    Forward reads the map for its moments, reads it and the residual, and writes one. Backward
    reads three and writes the residual's gradient, reads that and the map, and writes one.
    """
    rows = []
    for (shape, dilations, stride), units in _maps(model, batch, size, plan).items():
        batch, channels, *whole = shape
        out = (batch, len(dilations) * channels, *(-(-one // stride) for one in whole))
        rows.append({"shape": list(out), "units": units} | timed_norm(out, plan))
    return {"rows": rows, "bytes_per_second": _rates(rows)}


def pointwise(model: str, batch: int, size: tuple[int, int], plan: Plan) -> dict[str, Any]:
    """Both 1x1 convolutions of every EESP unit, by the operator and by torch's own.

    Forward reads a map and writes one. Backward reads the gradient twice and the map, and writes
    the map's gradient.
    """
    if plan.unchecked:
        raise UserError(plan.unchecked)
    rows = []
    for (shape, channels, groups), units in pointwise_maps(
        plan.side(Side("", model, batch=batch, size=size))
    ).items():
        row: dict[str, Any] = {"shape": list(shape), "channels": channels, "groups": groups}
        rows.append(row | {"units": units} | timed_pointwise(shape, channels, groups, plan))
    torchs = [row | {f"{way}_ms": row[f"torch_{way}_ms"] for way in WAYS} for row in rows]
    rates = {"bytes_per_second": _rates(rows), "torch_bytes_per_second": _rates(torchs)}
    return {"rows": rows, **rates}


def pointwise_maps(side: Side) -> dict[tuple[tuple[int, ...], int, int], int]:
    """Shapes that reach the 1x1 convolutions of the EESP units, channels they give, groups."""
    network, seen = network_of(side.model).network.eval(), []

    def look(conv: nn.Conv2d, given: tuple[Tensor], out: Tensor) -> None:
        seen.append(((side.batch, *given[0].shape[1:]), out.shape[1], conv.groups))

    hooks = [
        part.conv.register_forward_hook(look)
        for unit in network.modules()
        if isinstance(unit, EESP)
        for part in (unit.reduce, unit.merge)
    ]
    with torch.inference_mode():
        network(torch.randn(1, 3, *side.size))
    for hook in hooks:
        hook.remove()
    return dict(Counter(seen))


def timed_pointwise(
    shape: tuple[int, ...], channels: int, groups: int, plan: Plan
) -> dict[str, float]:
    """Milliseconds and bytes of a 1x1 convolution on such a map, and milliseconds of torch's."""
    batch, below, *whole = shape
    weight = torch.randn(channels, below // groups, device=plan.device, dtype=_dtype(plan))
    weight.requires_grad_()
    inputs = [x.requires_grad_() for x in _draw(plan, batch, below, *whole)]
    above = _draw(plan, batch, channels, *whole)
    sets = [((x,), (x, weight), grad) for x, grad in zip(inputs, above, strict=True)]

    def torchs(x: Tensor) -> Tensor:
        return F.conv2d(x, weight[:, :, None, None], groups=groups)

    def ours(x: Tensor) -> Tensor:
        return grouped_pointwise(x, weight, groups)

    return _ways({"": ours, "torch_": torchs}, sets, plan) | {
        "forward_bytes": inputs[0].nbytes + above[0].nbytes,
        "backward_bytes": 2 * inputs[0].nbytes + 2 * above[0].nbytes,
    }


def _maps(
    model: str, batch: int, size: tuple[int, int], plan: Plan
) -> dict[tuple[tuple[int, ...], tuple[int, ...], int], int]:
    if plan.unchecked:
        raise UserError(plan.unchecked)
    return reduced_maps(plan.side(Side("", model, batch=batch, size=size)))


def _rates(rows: list[dict[str, Any]]) -> dict[str, float]:
    return {
        way: sum(r["units"] * r[f"{way}_bytes"] for r in rows)
        / sum(r["units"] * r[f"{way}_ms"] / 1000 for r in rows)
        for way in WAYS
    }


def reduced_maps(side: Side) -> dict[tuple[tuple[int, ...], tuple[int, ...], int], int]:
    """Shapes that reach the branches of the EESP units, their dilations and strides; how often."""
    network, seen = network_of(side.model).network.eval(), []

    def look(unit: EESP) -> Callable[[nn.Module, Any, Tensor], None]:
        branches = [branch for branch in unit.branches if isinstance(branch, nn.Conv2d)]
        dilations = tuple(branch.dilation[0] for branch in branches)
        stride = branches[0].stride[0]
        return lambda module, given, out: seen.append((tuple(out.shape), dilations, stride))

    hooks = [
        unit.reduce.register_forward_hook(look(unit))
        for unit in network.modules()
        if isinstance(unit, EESP)
    ]
    with torch.inference_mode():
        network(torch.randn(1, 3, *side.size))
    for hook in hooks:
        hook.remove()
    return dict(Counter(((side.batch, *shape[1:]), *rest) for shape, *rest in seen))


def timed_pyramid(
    shape: tuple[int, ...], dilations: tuple[int, ...], stride: int, plan: Plan
) -> dict[str, float]:
    """Milliseconds and bytes of the pyramid on such a map.

    If it walks, Triton's strips stand beside it, and programs of half as many threads.
    """
    batch, channels, *whole = shape
    half = [-(-one // stride) for one in whole]
    weight = torch.randn(len(dilations), channels, 3, 3, device=plan.device, dtype=_dtype(plan))
    weight.requires_grad_()
    inputs = [x.requires_grad_() for x in _draw(plan, batch, channels, *whole)]
    above = _draw(plan, batch, len(dilations) * channels, *half)

    def run(x: Tensor) -> Tensor:
        return depthwise_pyramid(x, weight, list(dilations), stride)

    sets = [((x,), (x, weight), grad) for x, grad in zip(inputs, above, strict=True)]
    within = {
        "strips_": patch.object(walk, "FEWEST", math.inf),
        "half_": patch.object(walk, "SLOTS", walk.SLOTS // 2),
    }
    also = within if walk.walks(inputs[0], dilations, stride) else ()
    return _ways(dict.fromkeys(["", *also], run), sets, plan, within) | {
        "forward_bytes": inputs[0].nbytes + above[0].nbytes,
        "backward_bytes": 2 * inputs[0].nbytes + above[0].nbytes,
    }


def timed_norm(shape: tuple[int, ...], plan: Plan) -> dict[str, float]:
    """Milliseconds and bytes of norm, residual and PReLU on such a map."""
    vectors = torch.randn(3, shape[1], device=plan.device).unbind()
    vectors = [one.clone().requires_grad_() for one in vectors]

    def run(x: Tensor, residual: Tensor) -> Tensor:
        return norm_act(x, *vectors, residual=residual)[0]

    drawn = [_draw(plan, *shape) for _ in range(3)]
    sets = []
    for x, residual, grad in zip(*drawn, strict=True):
        maps = (x.requires_grad_(), residual.requires_grad_())
        sets.append((maps, (*maps, *vectors), grad))
    whole = drawn[0][0].nbytes
    return _ways({"": run}, sets, plan) | {"forward_bytes": 4 * whole, "backward_bytes": 7 * whole}


def _dtype(plan: Plan) -> torch.dtype:
    return torch.float32 if plan.small else torch.bfloat16


def _draw(plan: Plan, *sizes: int) -> list[Tensor]:
    """Random maps, together larger than the cache."""
    made = [torch.randn(*sizes, device=plan.device, dtype=_dtype(plan)) for _ in range(_sets(plan))]
    return [one.to(memory_format=torch.channels_last) for one in made]


def _sets(plan: Plan) -> int:
    return 1 if plan.small else 4


def _ways(
    runs: dict[str, Callable[..., Tensor]],
    sets: list[Any],
    plan: Plan,
    within: Mapping[str, AbstractContextManager[Any]] = MappingProxyType({}),
) -> dict[str, float]:
    """Milliseconds forward and backward, of a set of inputs, leaves and a gradient.

    Args:
        runs: Take turns; by what their figures' names begin with.
        within: What some of them are recorded in.
    """

    def forward(run: Callable[..., Tensor]) -> None:
        with torch.no_grad():
            for inputs, _, _ in sets:
                run(*inputs)

    def both(run: Callable[..., Tensor]) -> None:
        for inputs, leaves, grad in sets:
            torch.autograd.grad(run(*inputs), leaves, grad)

    calls = {}
    for name, run in runs.items():
        with within.get(name, nullcontext()):
            for way in (forward, both):
                calls[f"{name}{way.__name__}"] = recorded(partial(way, run), plan.device)
    times = plan.interleaved(calls, share=1 / 8)
    ms = {name: one["ms"] / len(sets) for name, one in times.items()}
    found: dict[str, float] = {}
    for name in runs:
        ahead = ms[f"{name}forward"]
        found[f"{name}forward_ms"] = ahead
        found[f"{name}backward_ms"] = max(ms[f"{name}both"] - ahead, 1e-9)
    return found
