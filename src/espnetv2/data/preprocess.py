"""From a picture to a network's input: the five conventions of the official repositories.

A convention belongs to the weights, not to the network: feeding a checkpoint with another's
input gives rubbish. Training, evaluation, prediction and export all take it from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from espnetv2.errors import UserError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes an input: `(pixel / unit - mean) / std / divisor`.

    Attributes:
        size: (height, width) of the input; None keeps the picture's own.
        fit: "stretch" resizes to `size` whatever the aspect; "center" resizes the short side to
            `size / crop_share` and crops the middle.
        resize: "pil" is anti-aliased on bytes, before normalising; "plain" is bilinear without
            anti-aliasing on bytes; "plain-late" the same on floats, after normalising.
        order: Channel order of the input.
        mean: Per channel, in `order`, on the scale pixel / unit.
        std: Likewise.
        unit: What pixels (0-255) are divided by first.
        divisor: What the normalised values are divided by last; 255 in ESPNet v1 (D12).
    """

    size: tuple[int, int] | None = None
    fit: Literal["stretch", "center"] = "stretch"
    resize: Literal["pil", "plain", "plain-late"] = "pil"
    order: Literal["rgb", "bgr"] = "rgb"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    unit: float = 255.0
    divisor: float = 1.0
    crop_share: float = 0.875

    def __call__(self, image: Image.Image) -> Tensor:
        """Turn one RGB picture into an input.

        Shape: picture (W, H) -> float32 (3, *size)
        """
        if self.size is not None and self.resize == "pil":
            image = _fit(image, self)
        pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)  # (3, H, W)
        if self.size is not None and self.resize == "plain":
            pixels = _plain(pixels.float(), self.size).round()
        tensor = self.normalize(pixels)
        if self.size is not None and self.resize == "plain-late":
            tensor = _plain(tensor, self.size)
        return tensor / self.divisor

    def pixels_only(self) -> Preprocessing:
        """The same resizing with pixels, 0 to 255 in RGB, left as they are."""
        zeros, ones = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        return replace(self, order="rgb", mean=zeros, std=ones, unit=1.0, divisor=1.0)

    def pixels(self, image: Image.Image) -> Tensor:
        """The picture resized as `__call__` does, but not normalised: for graphs that do it.

        Shape: picture (W, H) -> uint8 (3, *size), RGB
        """
        if self.size is not None and self.resize == "pil":
            image = _fit(image, self)
        pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
        if self.size is not None and self.resize != "pil":
            pixels = _plain(pixels.float(), self.size).round().clamp(0, 255).byte()
        return pixels

    def normalize(self, pixels: Tensor) -> Tensor:
        """Order, scale, mean and std, without the final divisor.

        Shape: (..., 3, H, W) RGB, 0-255 -> the same, float32
        """
        mean = torch.tensor(self.mean, dtype=torch.float32, device=pixels.device)[:, None, None]
        std = torch.tensor(self.std, dtype=torch.float32, device=pixels.device)[:, None, None]
        values = pixels.float()
        if self.order == "bgr":
            values = values.flip(-3)
        if self.unit != 1.0:
            values = values / self.unit
        return (values - mean) / std

    def batch(self, images: Sequence[Image.Image]) -> Tensor:
        """Turn pictures into one batch; without a fixed `size` they must be equally large.

        Shape: n pictures -> (n, 3, H, W)
        """
        tensors = [self(image) for image in images]
        shapes = {tuple(tensor.shape[1:]) for tensor in tensors}
        if len(shapes) > 1:
            raise UserError(
                f"pictures of different sizes {sorted(shapes)} do not fit in one batch; set a size"
            )
        return torch.stack(tensors)

    def resized(self, size: tuple[int, int] | None) -> Preprocessing:
        """The same convention at another (height, width)."""
        return replace(self, size=size)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the header of a weights file."""
        return asdict(self)

    @staticmethod
    def from_json(values: dict[str, Any]) -> Preprocessing:
        """The inverse of `to_json`."""
        plain: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return Preprocessing(**plain)


def _fit(image: Image.Image, spec: Preprocessing) -> Image.Image:
    assert spec.size is not None
    height, width = spec.size
    if spec.fit == "stretch":
        return image.resize((width, height), Image.Resampling.BILINEAR)
    scale = max(
        int(height / spec.crop_share) / image.height, int(width / spec.crop_share) / image.width
    )
    # torchvision's Resize: the short side exactly, the long side truncated
    large = (
        max(width, int(image.width * scale + 1e-6)),
        max(height, int(image.height * scale + 1e-6)),
    )
    image = image.resize(large, Image.Resampling.BILINEAR)
    left, top = round((large[0] - width) / 2), round((large[1] - height) / 2)
    return image.crop((left, top, left + width, top + height))


def _plain(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear without anti-aliasing, as OpenCV's INTER_LINEAR."""
    return F.interpolate(pixels[None], size=size, mode="bilinear", align_corners=False)[0]


_CITYSCAPES_BGR = Preprocessing(
    resize="plain-late",
    order="bgr",
    mean=(72.3923111, 82.90893555, 73.15840149),
    std=(45.3192215, 46.15289307, 44.91483307),
    unit=1.0,
    divisor=255.0,
)

CONVENTIONS: dict[str, Preprocessing] = {
    "imagenet": Preprocessing(size=(224, 224), fit="center"),
    "edgenets-segmentation": Preprocessing(),
    "edgenets-detection": Preprocessing(  # RGB, though the official demo feeds BGR: D45
        resize="plain",
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
        unit=1.0,
    ),
    "espnet-cityscapes": _CITYSCAPES_BGR,
    "espnet-camvid": replace(
        _CITYSCAPES_BGR, mean=(110.3310, 108.4089, 105.0332), std=(72.1257, 72.6907, 69.9043)
    ),
}
"""The five conventions by name; sizes are set by the weights or the user."""
