"""Effective receptive fields: how much each input pixel moves the value in the centre.

The theoretical field says which pixels a value *may* see; the gradient says which it does see and
how strongly. Pixels inside the field that receive no gradient at all are the holes that dilated
convolutions leave ("gridding", espnetv2 sec. 3.2); fusion of the branches closes them.

Paper: luo (the gradient of the centre value, averaged over random inputs).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from espnetv2.profiling.receptive_field import Pair, tracked

VISIBLE = 0.0455
"""Share of the strongest gradient from which on a pixel counts for the effective extent (luo)."""


@dataclass(frozen=True)
class EffectiveField:
    """Gradient of one value with respect to every pixel of the input.

    Attributes:
        gradient: (H, W), mean absolute gradient over inputs, and summed over input channels.
        centre: (row, column) of the input pixel that the value stands above.
        theoretical: (height, width) in pixels that the value may see, were the input endless.
    """

    gradient: Tensor
    centre: tuple[int, int]
    theoretical: Pair

    @property
    def inside(self) -> Tensor:
        """The part of the gradient that lies in the theoretical field and in the picture."""
        height, width = self.gradient.shape
        rows = _span(self.centre[0], self.theoretical[0], height)
        columns = _span(self.centre[1], self.theoretical[1], width)
        return self.gradient[rows, columns]

    @property
    def share_inside(self) -> float:
        """Share of the whole gradient in the theoretical field; 1 but for rounded centres."""
        total = float(self.gradient.sum())
        return float(self.inside.sum()) / total if total else 0.0

    @property
    def extent(self) -> float:
        """Side in pixels of a square with as many pixels as are moved visibly (`VISIBLE`)."""
        strongest = float(self.gradient.max())
        return math.sqrt(int((self.gradient > VISIBLE * strongest).sum()))

    @property
    def gridding(self) -> float:
        """Share of the pixels in the theoretical field that receive nothing."""
        return float((self.inside == 0).float().mean())

    @property
    def roughness(self) -> float:
        """Mean difference of neighbours in the field over the mean: 0 is flat, 2 lone pixels."""
        seen = self.inside
        mean = float(seen.mean())
        if not mean or min(seen.shape) < 2:
            return 0.0
        down, across = (seen.diff(dim=axis).abs().mean() for axis in (0, 1))
        return float(down + across) / 2 / mean

    @property
    def concentration(self) -> float:
        """Side in pixels of the centred square that holds half of the gradient."""
        return _half_side(self.gradient, self.centre)


def effective_field(
    function: Callable[[Tensor], Tensor],
    size: tuple[int, int],
    *,
    channels: int = 3,
    inputs: int = 8,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> EffectiveField:
    """Measure the effective receptive field of the value in the centre of a map.

    All channels of the centre are summed with random signs, so that no regular cancellation
    hides a pixel. A function that returns one channel shows what that channel alone sees: holes
    of one branch are filled by its neighbours in the sum.

    Args:
        function: From (1, channels, H, W) to (1, any, h, w); differentiable, in evaluation mode.
        size: (height, width) of the input.
        channels: Of the input.
        inputs: How many standard normal inputs to average over.
        seed: Of inputs and signs.

    Raises:
        ValueError: The function does not return one map, or `inputs` is below 1.
    """
    if inputs < 1:
        raise ValueError(f"{inputs=} must be at least 1")
    draw = torch.Generator().manual_seed(seed)
    total = torch.zeros(size, dtype=torch.float64)
    centre, theoretical = (0, 0), (0.0, 0.0)
    for _ in range(inputs):
        image = torch.randn((1, channels, *size), generator=draw, dtype=dtype)
        with torch.enable_grad(), tracked(image.requires_grad_()):
            result = function(image)
        if result.dim() != 4 or len(result) != 1:
            raise ValueError(f"the function must return one map, not shape {tuple(result.shape)}")
        spot = (result.shape[-2] // 2, result.shape[-1] // 2)
        values = result[0, :, spot[0], spot[1]]
        signs = torch.randint(0, 2, values.shape, generator=draw) * 2.0 - 1
        (gradient,) = torch.autograd.grad((values * signs.to(values)).sum(), image)
        total += gradient[0].abs().sum(dim=0).double()
        centre = (
            _above(spot[0], size[0], result.shape[-2]),
            _above(spot[1], size[1], result.shape[-1]),
        )
        theoretical = result.receptive_field.size  # type: ignore[attr-defined]
    return EffectiveField(total / inputs, centre, theoretical)


def _above(position: int, pixels: int, values: int) -> int:
    """The input pixel under a value; padded convolutions with stride s put value i on pixel i s."""
    if values >= pixels:
        return min(round(position * pixels / values), pixels - 1)
    return min(position * round(pixels / values), pixels - 1)


def _span(centre: int, extent: float, limit: int) -> slice:
    reach = int(-(-(extent - 1) // 2))  # rounded up: an even window leans to one side
    return slice(max(centre - reach, 0), min(centre + reach + 1, limit))


def _half_side(gradient: Tensor, centre: tuple[int, int]) -> float:
    rows = (torch.arange(gradient.shape[0]) - centre[0]).abs()
    columns = (torch.arange(gradient.shape[1]) - centre[1]).abs()
    ring = torch.maximum(rows[:, None], columns[None, :]).flatten()
    held = torch.zeros(int(ring.max()) + 1, dtype=torch.float64)
    held.index_add_(0, ring, gradient.double().flatten())
    reached = held.cumsum(0) >= 0.5 * held.sum()
    return 2.0 * int(reached.int().argmax()) + 1
