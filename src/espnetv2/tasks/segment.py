"""Segmentation: logits to a label map of the picture's size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from espnetv2.data.voc import bit_palette
from espnetv2.errors import UserError
from espnetv2.tasks.results import SegmentationMask

Enlarge = Literal["bilinear", "nearest"]


def decode(
    logits: Tensor,
    sizes: Sequence[tuple[int, int]],
    classes: Sequence[str],
    palette: Sequence[tuple[int, int, int]] | None = None,
    *,
    enlarge: Enlarge = "bilinear",
) -> list[SegmentationMask]:
    """Label maps at the pictures' own sizes.

    Shape: (B, classes, h, w) -> B results of (H, W)

    Args:
        logits: At the network's size.
        sizes: (height, width) of each picture.
        classes: Names by channel.
        palette: A colour per class; VOC's by default.
        enlarge: "bilinear" enlarges the logits, for smooth borders; "nearest" enlarges the label
            map, as the official scripts do.

    Raises:
        UserError: There are not as many names, or sizes, as the logits have.
    """
    if logits.shape[1] != len(classes):
        raise UserError(
            f"the network has {logits.shape[1]} classes but {len(classes)} names were given; "
            "pass one name per class"
        )
    if len(logits) != len(sizes):
        raise ValueError(f"{len(logits)} maps but {len(sizes)} sizes")
    colours = tuple(palette) if palette is not None else bit_palette(len(classes))
    return [
        SegmentationMask(label_map(one, size, enlarge=enlarge), tuple(classes), colours)
        for one, size in zip(logits, sizes, strict=True)
    ]


def label_map(logits: Tensor, size: tuple[int, int], *, enlarge: Enlarge) -> np.ndarray:
    """The class of each pixel of a picture of `size`.

    Shape: (classes, h, w) -> uint8 (H, W)
    """
    if enlarge == "bilinear" and tuple(logits.shape[1:]) != size:
        logits = F.interpolate(logits[None].float(), size=size, mode="bilinear")[0]  # D50
    return resize_labels(argmax(logits), size)


def argmax(logits: Tensor) -> np.ndarray:
    """The class of each pixel at the logits' size.

    Shape: (classes, h, w) -> uint8 (h, w)
    """
    if logits.is_cpu:  # numpy goes over the first axis three times as fast as torch
        found = logits.detach().float().numpy().argmax(0)
    else:
        found = logits.argmax(0).cpu().numpy()
    return np.asarray(found.astype(np.uint8))


def resize_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Nearest-neighbour resizing of a label map, as Pillow does it.

    Shape: uint8 (h, w) -> uint8 (H, W)
    """
    if labels.shape == size:
        return labels
    height, width = size
    return np.array(Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST))
