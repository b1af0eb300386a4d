"""Theoretical receptive fields, followed through a forward pass as it runs.

Every tensor that a traced function returns carries the extent of the input that it can see. The
rules follow torch's functions, not modules, so sums, concatenations and pooling between modules
count too.

Paper: espnetv2 Table 1 (a kernel of n taps at dilation r sees (n - 1) r + 1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

Pair = tuple[float, float]


@dataclass(frozen=True)
class ReceptiveField:
    """How much of the input one value sees.

    Attributes:
        size: (height, width) in input pixels.
        step: Input pixels between neighbouring values.
    """

    size: Pair = (1.0, 1.0)
    step: Pair = (1.0, 1.0)

    def wider(self, kernel: Pair, dilation: Pair = (1, 1), stride: Pair = (1, 1)) -> ReceptiveField:
        """Behind a sliding window."""
        size = tuple(
            s + (k - 1) * d * j
            for s, k, d, j in zip(self.size, kernel, dilation, self.step, strict=True)
        )
        step = tuple(j * s for j, s in zip(self.step, stride, strict=True))
        return ReceptiveField((size[0], size[1]), (step[0], step[1]))


@contextmanager
def tracked(image: Tensor) -> Iterator[None]:
    """Follow receptive fields from `image` on: outputs get an attribute `receptive_field`."""
    image.receptive_field = ReceptiveField()  # type: ignore[attr-defined]
    with _Follow():
        yield


class _Follow(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if isinstance(result, Tensor):
            joined = _join(_fields((*args, *kwargs.values())))
            if joined is not None:
                rule = _RULES.get(func)
                if rule is not None:
                    source = args[0] if args else kwargs["input"]
                    joined = rule(joined, source, result, args[1:], kwargs)
                result.receptive_field = joined  # type: ignore[attr-defined]
        return result


def _fields(values: Any) -> list[ReceptiveField]:
    found = []
    for value in values:
        if isinstance(value, Tensor):
            if (field := getattr(value, "receptive_field", None)) is not None:
                found.append(field)
        elif isinstance(value, (list, tuple)):
            found += _fields(value)
    return found


def _join(fields: list[ReceptiveField]) -> ReceptiveField | None:
    """What a sum or a concatenation sees: the widest of its parts."""
    if not fields:
        return None
    return ReceptiveField(
        (max(f.size[0] for f in fields), max(f.size[1] for f in fields)),
        (max(f.step[0] for f in fields), max(f.step[1] for f in fields)),
    )


def _convolution(
    field: ReceptiveField, source: Tensor, result: Tensor, args: Any, kwargs: Any
) -> ReceptiveField:
    weight = args[0] if args else kwargs["weight"]
    stride, dilation = (
        _argument(args, kwargs, 2, "stride", 1),
        _argument(args, kwargs, 4, "dilation", 1),
    )
    return field.wider((weight.shape[-2], weight.shape[-1]), _pair(dilation), _pair(stride))


def _transposed(
    field: ReceptiveField, source: Tensor, result: Tensor, args: Any, kwargs: Any
) -> ReceptiveField:
    weight = args[0] if args else kwargs["weight"]
    stride = _pair(_argument(args, kwargs, 2, "stride", 1))
    step = (field.step[0] / stride[0], field.step[1] / stride[1])
    taps = (-(-weight.shape[-2] // int(stride[0])), -(-weight.shape[-1] // int(stride[1])))
    size = field.wider(taps).size
    return ReceptiveField(size, step)


def _pooling(
    field: ReceptiveField, source: Tensor, result: Tensor, args: Any, kwargs: Any
) -> ReceptiveField:
    kernel = _pair(_argument(args, kwargs, 0, "kernel_size", 1))
    stride = _argument(args, kwargs, 1, "stride", None) or kernel
    return field.wider(kernel, stride=_pair(stride))


def _resampling(
    field: ReceptiveField, source: Tensor, result: Tensor, args: Any, kwargs: Any
) -> ReceptiveField:
    """Interpolation sees two neighbours a side; adaptive pooling its largest window."""
    ratio = tuple(a / b for a, b in zip(source.shape[-2:], result.shape[-2:], strict=True))
    window = (_window(ratio[0]), _window(ratio[1]))
    size = field.wider(window).size
    return ReceptiveField(size, (field.step[0] * ratio[0], field.step[1] * ratio[1]))


def _window(ratio: float) -> float:
    """Source values that one result value is made of."""
    if ratio == 1:
        return 1
    return max(2.0, float(int(-(-ratio // 1))))


def _argument(args: Any, kwargs: Any, position: int, name: str, default: Any) -> Any:
    return args[position] if len(args) > position else kwargs.get(name, default)


def _pair(value: Any) -> Pair:
    if isinstance(value, (tuple, list)):
        return (value[0], value[-1])
    return (value, value)


_RULES: dict[Any, Callable[..., ReceptiveField]] = {
    torch.conv2d: _convolution,
    F.conv2d: _convolution,
    torch.conv_transpose2d: _transposed,
    F.conv_transpose2d: _transposed,
    F.avg_pool2d: _pooling,
    torch.nn.functional.max_pool2d: _pooling,
    torch.max_pool2d: _pooling,
    F.interpolate: _resampling,
    F.adaptive_avg_pool2d: _resampling,
}
