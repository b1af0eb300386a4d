"""Run an exported network on a picture with ONNX Runtime, Pillow and numpy; no torch.

    pip install onnxruntime pillow numpy
    python run.py FOLDER PICTURE [--out mask.png] [--threads 2]

FOLDER is what `espnetv2 export MODEL --to onnx --output decoded --out FOLDER` has written. A
classifier's best classes are printed, a segmenter's share of each class, a detector's boxes in
pixels of the picture.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

SURE = 0.3  # least score of a box that is shown


def main() -> None:
    """Read, run, show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--out", type=Path, default=Path("mask.png"), help="of a segmenter")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    facts = json.loads((options.folder / "export.json").read_text(encoding="utf-8"))
    if facts["gives"] != "decoded":
        raise SystemExit(f"{options.folder}: export it with --output decoded")
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    session = onnxruntime.InferenceSession(
        str(options.folder / facts["files"][0]), settings, providers=["CPUExecutionProvider"]
    )
    picture = Image.open(options.picture).convert("RGB")
    outputs = session.run(None, {facts["inputs"][0]["name"]: prepare(picture, facts)})
    if facts["task"] == "classification":
        show_classes(outputs[0][0], facts["classes"])
    elif facts["task"] == "segmentation":
        show_mask(outputs[0][0], facts, picture.size, options.out)
    else:
        show_boxes(*(one[0] for one in outputs), facts["classes"], picture.size)


def prepare(picture: Image.Image, facts: dict[str, Any]) -> np.ndarray:
    """The network's input, (1, 3, height, width), from an RGB picture."""
    spec = facts["preprocessing"]
    height, width = facts["inputs"][0]["shape"][2:]
    size = (height, width) if isinstance(height, int) else spec["size"]
    if size is None:  # the network takes any size
        pixels = np.asarray(picture, dtype=np.float32)
    elif spec["resize"] == "pil":
        pixels = np.asarray(fit(picture, size, spec), dtype=np.float32)
    else:
        pixels = plain(np.asarray(picture, dtype=np.float32), size)
    if facts["takes"] == "pixels":  # the rest is in the graph
        whole = pixels.round().clip(0, 255).transpose(2, 0, 1)[None]
        return np.ascontiguousarray(whole.astype(facts["inputs"][0]["dtype"]))
    if spec["resize"] == "plain" and size is not None:
        pixels = pixels.round()
    if spec["order"] == "bgr":
        pixels = pixels[:, :, ::-1]
    mean, std = (np.array(spec[key], dtype=np.float32) for key in ("mean", "std"))
    values = (pixels / np.float32(spec["unit"]) - mean) / std / np.float32(spec["divisor"])
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None])


def fit(picture: Image.Image, size: tuple[int, int], spec: dict[str, Any]) -> Image.Image:
    """Resize the whole picture, or its middle if the network was trained on that."""
    height, width = size
    if spec["fit"] == "stretch":
        return picture.resize((width, height), Image.Resampling.BILINEAR)
    share = spec["crop_share"]
    scale = max(int(height / share) / picture.height, int(width / share) / picture.width)
    wide = max(width, int(picture.width * scale + 1e-6))
    high = max(height, int(picture.height * scale + 1e-6))
    left, top = round((wide - width) / 2), round((high - height) / 2)
    large = picture.resize((wide, high), Image.Resampling.BILINEAR)
    return large.crop((left, top, left + width, top + height))


def plain(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear without anti-aliasing. Shape: (H, W, 3) -> (*size, 3)."""
    for axis, count in enumerate(size):
        length = pixels.shape[axis]
        place = ((np.arange(count) + 0.5) * (length / count) - 0.5).clip(0, None)
        low = place.astype(np.int64).clip(max=length - 1)
        high = (low + 1).clip(max=length - 1)
        share = (place - low).astype(np.float32).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        pixels = pixels.take(low, axis) * (1 - share) + pixels.take(high, axis) * share
    return pixels


def show_classes(probabilities: np.ndarray, names: list[str]) -> None:
    """The five most likely ones."""
    for place in probabilities.argsort()[::-1][:5]:
        print(f"{probabilities[place]:.3f} {names[place]}")


def show_mask(mask: np.ndarray, facts: dict[str, Any], size: tuple[int, int], file: Path) -> None:
    """The share of each class; the mask goes into a file, at the picture's size."""
    for place, share in enumerate(np.bincount(mask.reshape(-1)) / mask.size):
        if share:
            print(f"{share:.3f} {facts['classes'][place]}")
    picture = Image.fromarray(mask)
    if facts["palette"]:
        picture.putpalette([value for colour in facts["palette"] for value in colour])
    picture.resize(size, Image.Resampling.NEAREST).save(file)
    print(f"wrote {file}")


def show_boxes(
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    names: list[str],
    size: tuple[int, int],
) -> None:
    """Left, top, right, bottom in pixels."""
    for box, score, label in zip(boxes, scores, labels, strict=True):
        if score >= SURE:
            corners = " ".join(f"{value:.0f}" for value in box * np.array([*size, *size]))
            print(f"{score:.3f} {names[label]} {corners}")


if __name__ == "__main__":
    main()
