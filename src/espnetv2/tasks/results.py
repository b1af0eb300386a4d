"""What a prediction is: small values that can be saved, sent and drawn."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from espnetv2.errors import UserError
from espnetv2.tasks import draw


@dataclass(frozen=True)
class Classification:
    """The most probable classes, best first.

    Attributes:
        labels: Names.
        scores: Probabilities, 0 to 1.
    """

    labels: tuple[str, ...]
    scores: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "task": "classification",
            "top": [
                {"label": label, "score": round(score, 6)}
                for label, score in zip(self.labels, self.scores, strict=True)
            ],
        }

    def save(self, path: str | Path) -> None:
        """Write a `.json` file.

        Raises:
            UserError: Another suffix.
        """
        _save_json(self.to_json(), Path(path), known=(".json",))

    def draw(self, image: Image.Image) -> Image.Image:
        """The picture with a bar per class in its corner."""
        return draw.bars(image, self.labels, self.scores)


@dataclass(frozen=True, eq=False)
class SegmentationMask:
    """A class for every pixel.

    Attributes:
        mask: Class indices, uint8 (H, W).
        classes: Names by index.
        palette: Colours by index.
    """

    mask: np.ndarray
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]

    @property
    def shares(self) -> dict[str, float]:
        """The share of pixels of each class that occurs, largest first."""
        counts = np.zeros(len(self.classes), np.int64)
        for top in range(0, len(self.mask), 1024):  # bincount copies its input as int64
            counts += np.bincount(self.mask[top : top + 1024].ravel(), minlength=len(counts))
        order = sorted(np.flatnonzero(counts), key=lambda index: (-counts[index], index))
        return {self.classes[index]: float(counts[index] / self.mask.size) for index in order}

    def to_json(self) -> dict[str, Any]:
        """Size and shares; the pixels themselves are for `.save("mask.png")`."""
        return {
            "task": "segmentation",
            "height": self.mask.shape[0],
            "width": self.mask.shape[1],
            "shares": {name: round(share, 6) for name, share in self.shares.items()},
        }

    def save(self, path: str | Path) -> None:
        """Write a palette `.png` whose values are the class indices, or a `.json` of the shares.

        Raises:
            UserError: Another suffix.
        """
        path = Path(path)
        if path.suffix.lower() == ".png":
            self.to_image().save(path)
        else:
            _save_json(self.to_json(), path, known=(".png", ".json"))

    def to_image(self) -> Image.Image:
        """The mask as a palette picture, as VOC stores its own."""
        image = Image.fromarray(self.mask).convert("L")
        image.putpalette([value for colour in self.palette for value in colour])
        return image

    def draw(
        self, image: Image.Image, *, opacity: float = 0.55, legend: bool = True
    ) -> Image.Image:
        """The picture under the coloured mask, with a legend of the classes' shares."""
        drawn = draw.overlay(image, self.mask, self.palette, opacity=opacity)
        if not legend:
            return drawn
        colours = dict(zip(self.classes, self.palette, strict=True))
        return draw.legend(drawn, self.shares, colours)


@dataclass(frozen=True, eq=False)
class Detections:
    """Boxes, best first.

    Attributes:
        boxes: x1 y1 x2 y2 in pixels of the picture, float32 (N, 4).
        labels: Indices into `classes`, int64 (N,).
        scores: Probabilities, float32 (N,).
        classes: Names by index, without background.
    """

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.boxes)

    def to_json(self) -> dict[str, Any]:
        """Plain values; boxes rounded to hundredths of a pixel."""
        return {
            "task": "detection",
            "detections": [
                {
                    "label": self.classes[label],
                    "score": round(score, 6),
                    "box": [round(side, 2) for side in box],
                }
                for box, label, score in zip(
                    self.boxes.tolist(), self.labels.tolist(), self.scores.tolist(), strict=True
                )
            ],
        }

    def save(self, path: str | Path) -> None:
        """Write a `.json` file.

        Raises:
            UserError: Another suffix.
        """
        _save_json(self.to_json(), Path(path), known=(".json",))

    def draw(self, image: Image.Image, *, threshold: float = 0.3) -> Image.Image:
        """The picture with the boxes whose score reaches `threshold`, captioned."""
        keep = self.scores >= threshold
        return draw.boxes(
            image, self.boxes[keep], self.labels[keep], self.scores[keep], self.classes
        )


def _save_json(values: dict[str, Any], path: Path, *, known: tuple[str, ...]) -> None:
    if path.suffix.lower() != ".json":
        raise UserError(
            f"cannot save a {values['task']} as {path.name!r}; use {' or '.join(known)}"
        )
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
