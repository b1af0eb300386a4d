"""Before a clock starts: the fused kernels against float64, on the device that is measured.

Every output and every gradient, for odd sizes, both strides, several dilations, both memory
formats. New tensors are filled with NaN, so that an element that nobody writes is found.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from gpu_clock import Deadline
from gpu_sides import with_kernels
from torch import Tensor, nn

from espnetv2.deploy.fold import fold
from espnetv2.kernels.depthwise_pyramid import (
    depthwise_pyramid,
    depthwise_pyramid_moments,
    reference,
    walk,
)
from espnetv2.kernels.grouped_pointwise import (
    grouped_pointwise,
    grouped_pointwise_act,
    grouped_pointwise_moments,
)
from espnetv2.kernels.grouped_pointwise import reference as pointwise
from espnetv2.kernels.norm_act import norm_act
from espnetv2.profiling.benchmark import network_of

BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-2}
"""Relative RMS that is allowed."""

SLACK = 3.0
"""Of a whole network: as far from float64 as plain layers are, times this."""

SIZES = ((1, 1), (7, 7), (13, 17), (33, 30), (28, 28), (56, 56))
MANY = {(28, 28): 64, (56, 56): 32}
"""Pictures, 3 of other sizes: with so many, programs take strips as wide as in training."""

SHORT = (torch.bfloat16, torch.float16)
WALKED = ((7, 7), (14, 14), (28, 28), (9, 100), (150, 56))
"""In the last, images are cut into bands."""

NORM_SIZES = ((1, 1), (7, 7), (33, 30), (448, 447))  # in the last programs take several tiles
GROUPS = ((4, 16, 4), (4, 64, 64), (2, 5, 3), (1, 160, 40))  # and channels of each, in and out
DILATIONS = ((1, 1, 2, 3), (1, 2, 3, 4), (1, 1, 1, 1))
FORMATS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}


@contextmanager
def poisoned() -> Iterator[None]:
    """New tensors are full of NaN; convolutions use no TF32."""
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.allow_tf32
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def apart(found: Tensor, truth: Tensor) -> float:
    """RMS(found - truth) / RMS(truth); NaN is infinitely far."""
    gap = (found.double() - truth.double()).square().mean().sqrt()
    scale = truth.double().square().mean().sqrt()
    far = float(gap / scale) if float(scale) else float(gap)
    return far if far == far else float("inf")


def cases(*, few: bool) -> list[tuple[Any, ...]]:
    """Size, stride, dilations, format and type; types alternate, so that a share has all of them.

    Every eleventh combination, or a handful: each case compiles kernels of its own.
    """
    sizes = ((4, 3),) if few else SIZES
    chosen = list(itertools.product(sizes, (1, 2), DILATIONS, FORMATS, BOUNDS))
    return chosen[:: 7 if few else 11]


def norm_cases(*, few: bool) -> list[tuple[Any, ...]]:
    """Size, with a residual, with a PReLU, format and type, in the same way."""
    sizes = ((4, 3),) if few else NORM_SIZES
    chosen = list(itertools.product(sizes, (True, False), (True, False), FORMATS, BOUNDS))
    return chosen[:: 7 if few else 5]


def pointwise_cases(*, few: bool) -> list[tuple[Any, ...]]:
    """Size, groups and their channels, format and type, in the same way."""
    sizes = ((4, 3),) if few else NORM_SIZES
    chosen = list(itertools.product(sizes, GROUPS, FORMATS, BOUNDS))
    return chosen[:: 7 if few else 5]


def check_operator(
    device: torch.device, deadline: Deadline, *, few: bool = False, share: tuple[int, int] = (0, 1)
) -> dict[str, Any]:
    """Largest relative RMS of the pyramid's output and gradients, by type; and all failures.

    Args:
        few: Whether to take a few small cases only.
        share: Which of how many shares of the cases to take.
    """
    return _compared(_pyramid, cases(few=few)[share[0] :: share[1]], device, deadline)


def check_walk(device: torch.device, deadline: Deadline, *, few: bool = False) -> dict[str, Any]:
    """The same of the kernels for warps, which walk down maps of halves; every third case."""
    chosen = list(itertools.product(WALKED, (1, 2), DILATIONS[:2], ("channels-last",), SHORT))
    chosen = chosen[:4] if few else chosen[::3]
    with patch.object(walk, "FEWEST", 1):
        return _compared(partial(_pyramid, channels=64), chosen, device, deadline)


def check_norms(
    device: torch.device, deadline: Deadline, *, few: bool = False, share: tuple[int, int] = (0, 1)
) -> dict[str, Any]:
    """The same of norm, residual and PReLU."""
    return _compared(_norm, norm_cases(few=few)[share[0] :: share[1]], device, deadline)


def check_pointwise(
    device: torch.device, deadline: Deadline, *, few: bool = False, share: tuple[int, int] = (0, 1)
) -> dict[str, Any]:
    """The same of 1x1 convolutions."""
    return _compared(_pointwise, pointwise_cases(few=few)[share[0] :: share[1]], device, deadline)


def _compared(
    run: Callable[..., tuple[dict[str, Tensor], dict[str, Tensor]]],
    chosen: list[tuple[Any, ...]],
    device: torch.device,
    deadline: Deadline,
) -> dict[str, Any]:
    """What the kernels and float64 say of cases, of which the type is last."""
    worst: dict[str, dict[str, float]] = {}
    failures, done = [], 0
    for *case, dtype in chosen:
        if not deadline.left():
            break
        found, truth = run(*case, dtype, device)
        kind = str(dtype).removeprefix("torch.")
        own = worst.setdefault(kind, {})
        for name, one in found.items():
            far = apart(one, truth[name])
            own[name] = max(far, own.get(name, 0.0))
            if far > BOUNDS[dtype]:
                failures.append(f"{name} of {kind} {', '.join(map(str, case))}: {far:.2e}")
        done += 1
    return {"cases": done, "of": len(chosen), "worst": worst, "failures": failures}


def _pyramid(
    size: tuple[int, int],
    stride: int,
    dilations: tuple[int, ...],
    form: str,
    dtype: torch.dtype,
    device: torch.device,
    *,
    channels: int = 24,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    given = _draw(dtype, size, stride, FORMATS[form], device, channels=channels)
    with poisoned():
        found = _both_ways(depthwise_pyramid, *given, list(dilations), stride)
        y, *moments = depthwise_pyramid_moments(*given[:2], list(dilations), stride)
    wide = [one.double() for one in given]
    truth = _both_ways(reference.depthwise_pyramid, *wide, list(dilations), stride)
    names = ("mean", "variance")
    truth |= dict(zip(names, reference.moments(y.double()), strict=True))
    return found | dict(zip(names, moments, strict=True)), truth


def _pointwise(
    size: tuple[int, int],
    channels: tuple[int, int, int],
    form: str,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    groups, below, above = channels

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, device=device).to(dtype)

    x, grad, residual = (
        draw(3, groups * one, *size).to(memory_format=FORMATS[form])
        for one in (below, above, above)
    )
    weight, factors = draw(groups * above, below), draw(4, groups * above)
    names = ("mean", "variance")

    def ways(operator: Any, act: Any, *maps: Tensor) -> dict[str, Tensor]:
        leaves = [one.detach().requires_grad_() for one in maps[:2]]
        y = operator(*leaves, groups)
        grads = torch.autograd.grad(y, leaves, maps[2])
        values = y.detach(), *grads, act(*maps[:2], *maps[3:], groups)
        told = (f"{part} of the 1x1" for part in ("output", "grad x", "grad weight", "activated"))
        return dict(zip(told, values, strict=True))

    given = x, weight, grad, factors, residual
    with poisoned():
        found = ways(grouped_pointwise, grouped_pointwise_act, *given)
        y, *moments = grouped_pointwise_moments(x, weight, groups)
    wide = [one.double() for one in given]
    truth = ways(pointwise.grouped_pointwise, pointwise.grouped_pointwise_act, *wide)
    if dtype == torch.float32:  # shorter ones' moments are of sums before they are rounded
        truth |= dict(zip(names, reference.moments(y.double()), strict=True))
        found |= dict(zip(names, moments, strict=True))
    return found, truth


def _norm(
    size: tuple[int, int],
    residual: bool,
    act: bool,
    form: str,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    def draw() -> Tensor:
        return torch.randn(3, 24, *size, device=device).to(dtype).to(memory_format=FORMATS[form])

    given = {"x": draw() + 3, "residual": draw() if residual else None}
    vectors = zip(("weight", "bias", "slope"), torch.randn(3, 24, device=device), strict=True)
    given |= {name: one.to(dtype) for name, one in vectors if act or name != "slope"}
    wide = {name: one.double() for name, one in given.items() if one is not None}
    u = _layers(**{name: one for name, one in wide.items() if name != "slope"})
    above = draw().masked_fill_(u.abs() < 1e-3, 0)  # where rounding decides the sign

    def both_ways(operator: Any, dtype: torch.dtype) -> dict[str, Tensor]:
        leaves = {name: one.to(dtype).requires_grad_() for name, one in wide.items()}
        z = operator(**leaves)
        grads = torch.autograd.grad(z, list(leaves.values()), above.to(dtype))
        names = [f"grad {name} of the norm" for name in leaves]
        return {"output of the norm": z.detach(), **dict(zip(names, grads, strict=True))}

    with poisoned():
        found = both_ways(lambda **leaves: norm_act(**leaves)[0], dtype)
    return found, both_ways(_layers, torch.float64)


def _layers(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    slope: Tensor | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    z = F.batch_norm(x, None, None, weight, bias, training=True)
    z = z if residual is None else z + residual
    return z if slope is None else F.prelu(z, slope)


def check_network(model: str, size: int, device: torch.device) -> dict[str, Any]:
    """A network, fused and plain, against float64: training in float32, the deploy form in bf16.

    Norms and depth enlarge last digits, so the fused kernels may be as far off as plain layers
    are, times `SLACK`.
    """
    torch.manual_seed(0)
    images = torch.randn(8, 3, size, size, device=device)
    truth = _trained(network_of(model).network.double().to(device), images.double())
    truth |= _passed(fold(network_of(model).network).double().to(device), images.double())
    far: dict[str, dict[str, float]] = {}
    for kernels in ("reference", "fused"):
        network = with_kernels(network_of(model).network.to(device), kernels, device)
        form = fold(network_of(model).network).to(device, torch.bfloat16)
        form = with_kernels(form, kernels, device, frozen=True)
        short = images.to(torch.bfloat16, memory_format=torch.channels_last)
        with poisoned():
            found = _trained(network, images) | _passed(form, short)
        far[kernels] = {name: apart(one, truth[name]) for name, one in found.items()}
    failures = [
        f"{model}, {name}: {gap:.2e}, plain layers {far['reference'][name]:.2e}"
        for name, gap in far["fused"].items()
        if gap > max(BOUNDS[torch.float32], SLACK * far["reference"][name])
    ]
    return {"model": model, "apart": far, "failures": failures}


def _draw(
    dtype: torch.dtype,
    size: tuple[int, int],
    stride: int,
    form: torch.memory_format,
    device: torch.device,
    *,
    channels: int = 24,
) -> tuple[Tensor, Tensor, Tensor]:
    """Input, weights of 4 branches, and the gradient that comes from above."""
    below = tuple(-(-side // stride) for side in size)
    batch = MANY.get(size, 3)
    x, above = (
        torch.randn(batch, many, *sides, device=device).to(dtype).to(memory_format=form)
        for many, sides in ((channels, size), (4 * channels, below))
    )
    return x, torch.randn(4, channels, 3, 3, device=device).to(dtype), above


def _both_ways(
    operator: Any, x: Tensor, weight: Tensor, above: Tensor, dilations: list[int], stride: int
) -> dict[str, Tensor]:
    x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
    y = operator(x, weight, dilations, stride)
    grad_x, grad_weight = torch.autograd.grad(y, (x, weight), above)
    return {"output": y.detach(), "grad x": grad_x, "grad weight": grad_weight}


def _trained(network: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """The outputs of a training pass, and all gradients of a sum that weighs them unequally."""
    for module in network.train().modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    logits = network(images)
    weights = torch.linspace(-1, 1, logits.numel(), device=logits.device, dtype=logits.dtype)
    (logits.flatten() * weights).sum().backward()
    grads = [one.grad.flatten() for one in network.parameters() if one.grad is not None]
    return {"training, outputs": logits.detach(), "training, gradients": torch.cat(grads)}


def _passed(form: nn.Module, images: Tensor) -> dict[str, Tensor]:
    with torch.inference_mode():
        return {"deploy form, outputs": form.eval()(images)}
