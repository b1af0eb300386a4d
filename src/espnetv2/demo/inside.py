"""An EESP unit opened: what its branches see, before and after fusion.

Paper: espnetv2 sec. 3.2 (hierarchical feature fusion) and 3.3 (limits of the receptive field).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from espnetv2.demo.look import Upload, as_data
from espnetv2.demo.schema import BranchView, Fields, Grid, Opened, Size
from espnetv2.errors import UserError, unknown
from espnetv2.layers.eesp import EESP
from espnetv2.models.espnetv2 import LAYOUTS
from espnetv2.profiling.effective_field import EffectiveField, effective_field
from espnetv2.weights.load import Loaded

LIMITS = LAYOUTS["s1_0"].receptive_fields  # the same in every width
SEEN_SIDE = 256
"""Pixels of the square image whose gradient is taken."""
INPUTS = 4
TILES = 32
"""Channels of a branch that are drawn, at most."""
_NAME = re.compile(r".*stages\.(\d+)\.(?:(down)\.unit|units\.\d+)$")
_DIVERGING = ((30, 90, 168), (124, 174, 222), (245, 246, 247), (240, 152, 106), (176, 32, 44))
_HEAT = ((18, 16, 40), (92, 28, 120), (190, 56, 110), (250, 142, 88), (253, 246, 190))


class _ReachedError(Exception):
    """The unit has been reached; the rest of the network need not run."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value


def units_of(network: nn.Module) -> dict[str, EESP]:
    """The EESP units of the backbone by name, in order."""
    named = network.named_modules()
    return {name: part for name, part in named if isinstance(part, EESP) and _NAME.match(name)}


def describe(network: nn.Module) -> list[dict[str, object]]:
    """What can be chosen: names, channels, dilations, limits."""
    return [
        {
            "name": name,
            "title": _title(name, unit),
            "in_channels": unit.in_channels,
            "out_channels": unit.out_channels,
            "dilations": dilations(unit),
            "limit": limit_of(name),
        }
        for name, unit in units_of(network).items()
    ]


def dilations(unit: EESP) -> list[int]:
    """Of the branches, near first."""
    return [int(branch.dilation[0]) for branch in unit.branches]  # type: ignore[index]


def limit_of(name: str) -> int:
    """Widest view of a branch in pixels of the unit's input: strided units take the one before."""
    match = _NAME.match(name)
    assert match is not None
    return LIMITS[int(match[1]) + (match[2] is None)]


def open_unit(loaded: Loaded, title: str, name: str, upload: Upload) -> Opened:
    """The maps of a unit's branches on a picture.

    Raises:
        UserError: No such unit.
    """
    unit = _unit(loaded.network, name)
    with torch.inference_mode():
        x = _input_of(loaded, unit, upload)
        reduced = unit.reduce(x)
        alone = [branch(reduced) for branch in unit.branches]
        fused = unit.views(x)
    shown = min(int(alone[0].shape[1]), TILES)
    height, width = alone[0].shape[-2:]
    return Opened(
        network=title,
        unit=name,
        channels=shown,
        tile=Size(height=height, width=width),
        limit=limit_of(name),
        input=_tiles(reduced[0, :shown], (height, width)),
        branches=[
            BranchView(
                dilation=dilation,
                sees=2 * dilation + 1,
                before=_tiles(one[0, :shown], (height, width)),
                after=_tiles(two[0, :shown], (height, width)),
            )
            for dilation, one, two in zip(dilations(unit), alone, fused, strict=True)
        ],
    )


def fields_of(loaded: Loaded, name: str) -> Fields:
    """Receptive fields of a unit, by gradients.

    Raises:
        UserError: No such unit.
    """
    unit = _unit(loaded.network, name)
    side = 2 * limit_of(name) + 1
    bare = copy.deepcopy(loaded.network)
    for other in units_of(bare).values():
        other.fusion = False
    return Fields(
        unit=name,
        dilations=dilations(unit),
        before=[_seen(_alone(unit, i), side, unit.in_channels) for i in range(len(unit.branches))],
        after=[_seen(_summed(unit, i), side, unit.in_channels) for i in range(len(unit.branches))],
        fused=_grid(_from_image(loaded.network, name)),
        unfused=_grid(_from_image(bare, name)),
    )


def _unit(network: nn.Module, name: str) -> EESP:
    units = units_of(network)
    if not units:
        raise UserError("this network has no EESP unit; choose an ESPNetv2")
    if name not in units:
        raise unknown("unit", name, units)
    return units[name]


def _title(name: str, unit: EESP) -> str:
    stage, down = _NAME.match(name).groups()  # type: ignore[union-attr]
    kind = "strided unit" if down else f"unit {int(name.rpartition('.')[2]) + 1}"
    return f"Stage {int(stage) + 1}, {kind}: {unit.in_channels} to {unit.out_channels} channels"


def _input_of(loaded: Loaded, unit: EESP, upload: Upload) -> Tensor:
    def stop(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        raise _ReachedError(inputs[0])

    hook = unit.register_forward_pre_hook(stop)
    try:
        loaded.network(loaded.preprocessing(upload.image)[None])
    except _ReachedError as reached:
        return reached.value
    finally:
        hook.remove()
    raise UserError("this network does not use that unit; choose another")


def _alone(unit: EESP, index: int) -> Callable[[Tensor], Tensor]:
    branch = unit.branches[index]
    return lambda x: branch(unit.reduce(x))


def _summed(unit: EESP, index: int) -> Callable[[Tensor], Tensor]:
    return lambda x: unit.views(x)[index]


def _seen(function: Callable[[Tensor], Tensor], side: int, channels: int) -> Grid:
    return _grid(effective_field(function, (side, side), channels=channels, inputs=INPUTS))


def _from_image(network: nn.Module, name: str) -> EffectiveField:
    unit = units_of(network)[name]

    def stop(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        raise _ReachedError(output)

    def until(image: Tensor) -> Tensor:
        try:
            network(image)
        except _ReachedError as reached:
            return reached.value
        raise AssertionError("the network has just used this unit")

    hook = unit.register_forward_hook(stop)
    try:
        return effective_field(until, (SEEN_SIDE, SEEN_SIDE), inputs=INPUTS)
    finally:
        hook.remove()


def _grid(field: EffectiveField) -> Grid:
    """Heat where the gradient is, nothing where there is none, be it inside the field or not."""
    values = field.gradient.sqrt()  # weak ones are to be seen too
    scaled = (255 * values / max(float(values.max()), 1e-30)).round().byte().numpy()
    pixels = np.zeros((*scaled.shape, 4), np.uint8)
    pixels[..., :3] = np.asarray(_ramp(_HEAT), np.uint8).reshape(256, 3)[scaled]
    pixels[..., 3] = np.where(field.gradient.numpy() > 0, 255, 0)
    return Grid(
        picture=as_data(Image.fromarray(pixels), "PNG"),
        theoretical=max(field.theoretical),
        extent=round(field.extent, 2),
        gridding=round(field.gridding, 4),
    )


def _tiles(maps: Tensor, size: tuple[int, int]) -> str:
    """Channels side by side; each has its own scale, zero is white. Shape: (C, h, w)."""
    count, height, width = maps.shape
    scale = maps.abs().flatten(1).quantile(0.99, dim=1).clamp(min=1e-12)[:, None, None]
    scaled = (127.5 + 127.5 * maps / scale).clamp(0, 255).round().byte()
    row = scaled.permute(1, 0, 2).reshape(height, count * width).numpy()
    image = Image.fromarray(row)
    if (height, width) != size:
        image = image.resize((count * size[1], size[0]), Image.Resampling.NEAREST)
    image.putpalette(_ramp(_DIVERGING))
    return as_data(image, "PNG")


def _ramp(anchors: Sequence[tuple[int, int, int]]) -> list[int]:
    """256 colours through the anchors."""
    places = np.linspace(0, 255, len(anchors))
    columns = [np.interp(np.arange(256), places, [a[i] for a in anchors]) for i in range(3)]
    return [round(float(value)) for value in np.stack(columns, 1).ravel()]
