"""A program of the native engine, written step by step; see docs/native.md for its steps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from espnetv2.deploy.forms import Affine, TwoSlopes
from espnetv2.deploy.native_int8 import Bytes, rounded
from espnetv2.errors import UserError

FORMAT = "espnetv2-native/1"
IMAGE = "image"
Slopes = tuple[Tensor, Tensor]
"""Factors of positive and of negative values, one a channel."""
Scale = tuple[int, int, int]
"""Numerator and denominator of a factor on height and width, and the least side."""


class Writer:
    """Collects steps and arrays; every method that adds a step gives the name of its result.

    Args:
        channels: Of the image.
        ranges: How the inputs of layers that are computed in bytes are rounded.
    """

    def __init__(self, channels: int, ranges: Mapping[nn.Module, Bytes] | None = None) -> None:
        self.arrays: dict[str, Tensor] = {}
        self.ranges = dict(ranges or {})
        self._steps: list[dict[str, Any]] = []
        self._outputs: list[dict[str, Any]] = []
        self._image_channels = channels

    def program(self) -> str:
        """The JSON for the file's header."""
        return json.dumps(
            {"channels": self._image_channels, "steps": self._steps, "outputs": self._outputs}
        )

    def conv(
        self,
        x: str,
        conv: nn.Conv2d,
        *,
        act: nn.Module | Slopes | None = None,
        residual: str | None = None,
        lanes_of: str | None = None,
    ) -> str:
        """A convolution that mixes channels, then the residual, then the slopes."""
        _check(conv)
        return self._add(
            "conv",
            [x],
            **self._weights(conv),
            bias=conv.bias,
            stride=conv.stride[0],
            dilation=conv.dilation[0],
            groups=conv.groups,
            residual=residual,
            lanes_of=lanes_of,
            **_slopes(act),
        )

    def depthwise(self, x: str, conv: nn.Conv2d, *, act: nn.Module | Slopes | None = None) -> str:
        """One depth-wise convolution."""
        return self.pyramid([x], [conv], act=act)

    def pyramid(
        self,
        sources: Sequence[str],
        branches: Sequence[nn.Conv2d],
        *,
        running: bool = False,
        norm: nn.Module | None = None,
        act: nn.Module | Slopes | None = None,
    ) -> str:
        """Depth-wise convolutions side by side, each of all sources; `running` adds them up."""
        made = []
        for conv in branches:
            _check(conv)
            one = {"weight": self._array(conv.weight), "dilation": conv.dilation[0]}
            if conv.bias is not None:
                one["bias"] = self._array(conv.bias)
            made.append(one)
        return self._add(
            "pyramid",
            list(sources),
            branches=made,
            stride=branches[0].stride[0],
            running=running,
            **_affine(norm),
            **_slopes(act),
        )

    def halve(self, x: str, channels: int, *, act: nn.Module | Slopes | None = None) -> str:
        """Average pooling 3x3, stride 2, padded with zeros that count."""
        conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1, groups=channels, bias=False)
        nn.init.constant_(conv.weight, 1 / 9)
        # the image lies plane by plane, where the loop of mixing convolutions reads it
        return self.conv(x, conv, act=act) if x == IMAGE else self.depthwise(x, conv, act=act)

    def combine(
        self,
        x: str,
        *,
        gate: str | None = None,
        other: str | None = None,
        norm: nn.Module | None = None,
        act: nn.Module | Slopes | None = None,
    ) -> str:
        """act(norm(x * gate + other)), each where given."""
        return self._add("combine", [x], gate=gate, other=other, **_affine(norm), **_slopes(act))

    def resize(
        self, x: str, *, like: str, scale: Scale = (1, 1, 1), act: Slopes | None = None
    ) -> str:
        """Bilinear with aligned corners, to the size of `like` or a multiple of it."""
        return self._add("resize", [x], size=_size(like, scale), **_slopes(act))

    def adapt(
        self, x: str, *, like: str, scale: Scale = (1, 1, 1), act: Slopes | None = None
    ) -> str:
        """Adaptive average pooling, to the size of `like` or a multiple of it."""
        return self._add("adapt", [x], size=_size(like, scale), **_slopes(act))

    def enlarge(
        self, x: str, conv: nn.ConvTranspose2d, *, like: str, act: nn.Module | Slopes | None = None
    ) -> str:
        """A transposed convolution 2x2 at stride 2, cut to the size of `like`."""
        return self._add(
            "enlarge",
            [x],
            weight=conv.weight,
            bias=conv.bias,
            size={"like": like},
            **_slopes(act),
        )

    def gather(self, x: str, channels: Sequence[int]) -> str:
        """Channels of a map, picked one by one."""
        return self._add("gather", [x], channels=list(channels))

    def simple(self, op: str, *sources: str, groups: int | None = None) -> str:
        """A step without weights: shrink, mean, maximum, logistic, shuffle or concat."""
        return self._add(op, list(sources), groups=groups)

    def output(
        self,
        name: str,
        sources: Sequence[str],
        form: str,
        *,
        values: int = 1,
        enlarged: bool = False,
        **settings: float,
    ) -> None:
        """What the network gives; a map may be enlarged to the size of the image."""
        given = {"name": name, "in": list(sources), "form": form, "values": values}
        self._outputs.append({**given, "enlarged": enlarged, **settings})

    def _add(self, op: str, sources: list[str], **options: Any) -> str:
        name = f"{op}{len(self._steps)}"
        step: dict[str, Any] = {"op": op, "in": sources, "out": name}
        for key, value in options.items():
            if isinstance(value, Tensor):
                step[key] = self._array(value)
            elif value is not None and value is not False:
                step[key] = value
        self._steps.append(step)
        return name

    def _array(self, values: Tensor) -> str:
        name = f"a{len(self.arrays)}"
        kept = values if values.dtype == torch.int8 else values.detach().float()
        self.arrays[name] = kept.contiguous().clone()
        return name

    def _weights(self, conv: nn.Conv2d) -> dict[str, Any]:
        if conv not in self.ranges:
            return {"weight": conv.weight}
        own = self.ranges[conv]
        weight, scale = rounded(conv.weight.detach())
        return {
            "weight": weight,
            "weight_scale": scale,
            "input_scale": own.scale,
            "input_zero": own.zero,
        }


def relu(channels: int) -> Slopes:
    """ReLU as two slopes."""
    return torch.ones(channels), torch.zeros(channels)


def slopes_of(act: nn.Module) -> Slopes | None:
    """The two slopes of an activation of the deploy form."""
    if isinstance(act, TwoSlopes):
        return act.fall + act.kink, act.fall
    if isinstance(act, nn.Identity):
        return None
    raise UserError(f"the native engine has no activation like {type(act).__name__}")


def _size(like: str, scale: Scale) -> dict[str, Any]:
    numerator, denominator, least = scale
    return {"like": like, "numerator": numerator, "denominator": denominator, "least": least}


def _slopes(act: nn.Module | Slopes | None) -> dict[str, Tensor]:
    found = slopes_of(act) if isinstance(act, nn.Module) else act
    return {} if found is None else {"rise": found[0], "fall": found[1]}


def _affine(norm: nn.Module | None) -> dict[str, Tensor]:
    if isinstance(norm, Affine):
        return {"scale": norm.scale, "shift": norm.shift}
    assert norm is None or isinstance(norm, nn.Identity)
    return {}


def _check(conv: nn.Conv2d) -> None:
    """The engine pads by half of the reach, as all networks of this package do."""
    side, other = conv.kernel_size
    reach = conv.dilation[0] * (side // 2)
    same = side == other and conv.stride[0] == conv.stride[1] <= 2
    if not same or conv.padding != (reach, reach) or side % 2 == 0:
        raise UserError(f"the native engine has no convolution like {conv}")
