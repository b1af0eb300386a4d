"""Label maps as the Cityscapes server takes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from espnetv2.data.cityscapes import TRAIN_TO_RAW
from espnetv2.errors import UserError
from espnetv2.tasks import segment
from espnetv2.tasks.segment import Enlarge


class CityscapesSubmission:
    """Writes each prediction at the picture's own size, with raw ids, under the picture's name.

    The server finds a prediction by the beginning of its name, `<city>_<sequence>_<frame>`.

    Args:
        folder: Made if it is missing.
        enlarge: How predictions reach the picture's size.

    Raises:
        UserError: The folder cannot be written.
    """

    def __init__(self, folder: Path, *, enlarge: Enlarge = "nearest") -> None:
        self.folder, self.enlarge = folder, enlarge
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(folder, error) from error

    def __call__(self, answers: Any, samples: Sequence[Any]) -> None:
        """Write a batch. Shape: logits (B, classes, h, w)."""
        for logits, sample in zip(torch.as_tensor(answers), samples, strict=True):
            size = (sample.image.height, sample.image.width)
            labels = segment.label_map(logits, size, enlarge=self.enlarge)
            path = self.folder / f"{sample.name}.png"
            try:
                Image.fromarray(TRAIN_TO_RAW[labels]).save(path)
            except OSError as error:
                raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(f"cannot write {path} ({error.strerror or error}); choose another --submit")
