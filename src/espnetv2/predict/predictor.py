"""What `espnetv2.load` returns: a picture goes in, a result comes out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from espnetv2.data.pictures import open_picture, upright_rgb
from espnetv2.data.voc import bit_palette
from espnetv2.deploy.artefact import is_artefact
from espnetv2.deploy.engine_torch import open_device, use_kernels_of
from espnetv2.deploy.opening import fastest, load_engine
from espnetv2.errors import UserError
from espnetv2.layers.conv import resize
from espnetv2.predict.tiling import labels_in_bands, segment_tiled
from espnetv2.tasks import classify, detect, segment
from espnetv2.tasks.priors import priors_of
from espnetv2.tasks.results import Classification, Detections, SegmentationMask
from espnetv2.weights.load import Loaded, load_network

Picture: TypeAlias = "str | Path | Image.Image | np.ndarray"
Result: TypeAlias = Classification | SegmentationMask | Detections

SMALLEST = 32
"""Pixels a side below which no network here works; smaller pictures are enlarged to it."""

LARGEST = 8_000_000
"""Pixels above which a picture without a fixed size is segmented in tiles."""

LARGEST_LOGITS = 2**26
"""Logits of one picture above which they are enlarged band by band."""


def load(
    name_or_file: str | Path,
    *,
    device: str = "cpu",
    size: int | tuple[int, int] | None = None,
    enlarge: Literal["bilinear", "nearest"] = "bilinear",
    top: int = 5,
    score: float = 0.3,
    engine: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    kernels: str = "auto",
) -> Predictor:
    """Load published or own weights, ready to look at pictures.

    Args:
        name_or_file: A name such as "espnetv2_seg_s1_0.edgenets_voc_384", a weights file, or an
            artefact of `espnetv2 export`.
        device: Where to compute: "cpu", "cuda", "cuda:1", "mps".
        size: (height, width) of the input, or one number for a square; else the weights' own,
            else the picture's own.
        enlarge: How a segmentation reaches the picture's size: "bilinear" on logits, or
            "nearest" on labels as the official scripts do.
        top: How many classes a classification names; one with several labels names all that
            are more probable than not.
        score: Detections below it are left out.
        engine: Runtime, a key of `deploy.targets.ENGINES`; an artefact's own, else the native one
            on a CPU where it is built, on an NVIDIA GPU "cudagraph" for inputs of one size, else
            torch.
        precision: That the engine computes in: "fp32", "bf16" or "fp16".
        threads: CPU threads of the engine.
        kernels: Of EESP units in torch's engines: "reference", "fused" or "auto"; see
            docs/kernels.md.

    Raises:
        UserError: The name, the file, the device, the size or the engine does not fit.
    """
    plain = precision is None and not is_artefact(name_or_file)
    pair = None if size is None else _pair(size)
    if engine is None and plain:
        loaded = fastest(load_network(name_or_file), threads=threads, device=device, size=pair)
    elif engine == "torch" and plain:
        if threads is not None:
            torch.set_num_threads(threads)
        loaded = load_network(name_or_file)
    else:
        loaded = load_engine(
            name_or_file,
            engine=engine,
            precision=precision,
            threads=threads,
            size=pair,
            device=device,
        )
    use_kernels_of(loaded.network, kernels, str(open_device(device)))
    return Predictor(loaded, device=device, size=size, enlarge=enlarge, top=top, score=score)


class Predictor:
    """A network with its preprocessing and its decoding; see `load` for the arguments.

    Attributes:
        model: Turns a preprocessed batch into raw outputs; any callable network will do.
        preprocessing: The convention of the weights, at the chosen size.
        classes: Names by index.
        palette: Their colours, for segmentation.
        task: "classification", "segmentation" or "detection".
    """

    def __init__(
        self,
        loaded: Loaded,
        *,
        device: str = "cpu",
        size: int | tuple[int, int] | None = None,
        enlarge: Literal["bilinear", "nearest"] = "bilinear",
        top: int = 5,
        score: float = 0.3,
    ) -> None:
        if loaded.task not in ("classification", "segmentation", "detection"):
            raise UserError(f"{loaded.name} is a {loaded.task} model; it does not take pictures")
        if enlarge not in ("bilinear", "nearest"):
            raise UserError(f"enlarge {enlarge!r} is unknown; choose bilinear or nearest")
        self.device = open_device(device)
        self.model: Any = loaded.network
        if isinstance(loaded.network, nn.Module):  # else an engine, which is neither
            self.model = loaded.network.eval().to(self.device)
        self.name, self.task, self.multi_label = loaded.name, loaded.task, loaded.multi_label
        self.classes, self.palette = loaded.classes, loaded.palette
        self.preprocessing = loaded.preprocessing
        if size is not None:
            self.preprocessing = loaded.preprocessing.resized(_pair(size))
        self.enlarge: Literal["bilinear", "nearest"] = enlarge
        self.top, self.score = top, score
        self._priors: Tensor | None = None
        if self.task == "detection":
            if self.preprocessing.size is None:
                raise UserError(f"{self.name}: a detector needs a fixed size; give size=300 or 512")
            self._priors = priors_of(self.model, self.preprocessing.size, device=self.device)

    def __call__(self, image: Picture) -> Result:
        """Look at one picture: a path, a PIL image or a uint8 RGB array (H, W, 3)."""
        return self.predict([image])[0]

    def predict(self, images: Sequence[Picture]) -> list[Result]:
        """Look at several; those whose inputs are equally large go through as one batch.

        Pictures too large for one pass are segmented in tiles.
        """
        opened = [as_picture(image) for image in images]
        results: dict[int, Result] = {
            i: self.segment_tiled(one) for i, one in enumerate(opened) if self.wants_tiles(one)
        }
        inputs = {i: self.preprocess(one) for i, one in enumerate(opened) if i not in results}
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, tensor in inputs.items():
            groups.setdefault(tuple(tensor.shape), []).append(index)
        for members in groups.values():
            raw = self.run(torch.cat([inputs[i] for i in members]))
            sizes = [(opened[i].height, opened[i].width) for i in members]
            results.update(zip(members, self.decode(raw, sizes), strict=True))
        return [results[index] for index in range(len(opened))]

    def preprocess(self, image: Picture) -> Tensor:
        """The network's input for one picture.

        Shape: picture (W, H) -> float32 (1, 3, *size), on the CPU
        """
        picture = as_picture(image)
        spec = self.preprocessing
        if spec.size is None and min(picture.size) < SMALLEST:
            spec = spec.resized((max(picture.height, SMALLEST), max(picture.width, SMALLEST)))
        return spec(picture)[None]

    def run(self, batch: Tensor) -> Any:
        """Raw outputs of the network for a preprocessed batch."""
        with torch.inference_mode():
            return self.model(batch.to(self.device))

    def decode(self, raw: Any, sizes: list[tuple[int, int]]) -> list[Result]:
        """Results for raw outputs; `sizes` are the pictures' (height, width)."""
        with torch.inference_mode():
            if self.multi_label:
                from espnetv2.tasks import multilabel  # its metrics take seconds to import

                return list(multilabel.decode(raw, self.classes))
            if self.task == "classification":
                return list(classify.decode(raw, self.classes, top=self.top))
            if self.task == "segmentation":
                return [self._mask(raw[i : i + 1], size) for i, size in enumerate(sizes)]
            assert self._priors is not None
            return list(
                detect.decode(raw, self._priors, sizes, self.classes, score_threshold=self.score)
            )

    def segment_tiled(
        self, image: Picture, *, tile: int = 1024, overlap: int = 256
    ) -> SegmentationMask:
        """Segment a picture of any size at its own resolution; see `tiling.segment_tiled`."""
        if self.task != "segmentation":
            raise UserError(f"tiles are for segmentation; {self.name} does {self.task}")
        with torch.inference_mode():
            mask = segment_tiled(
                self.model,
                as_picture(image),
                self.preprocessing,
                tile=tile,
                overlap=overlap,
                device=self.device,
            )
        return SegmentationMask(mask, self.classes, self._colours)

    def wants_tiles(self, image: Image.Image) -> bool:
        """Whether a picture is too large to be segmented at its own size in one pass."""
        own_size = self.task == "segmentation" and self.preprocessing.size is None
        return own_size and image.width * image.height > LARGEST

    @property
    def _colours(self) -> tuple[tuple[int, int, int], ...]:
        return self.palette if self.palette is not None else bit_palette(len(self.classes))

    def _mask(self, logits: Tensor, size: tuple[int, int]) -> SegmentationMask:
        """(1, classes, h, w) -> the result, without holding all logits of a large picture."""
        inputs = self.preprocessing.size or size
        if logits.shape[2] < inputs[0]:  # ESPNet-C answers at 1/8: D53
            logits = resize(logits, inputs)
        if self.enlarge == "bilinear" and logits.shape[1] * size[0] * size[1] > LARGEST_LOGITS:
            return SegmentationMask(labels_in_bands(logits[0], size), self.classes, self._colours)
        decoded = segment.decode(logits, [size], self.classes, self._colours, enlarge=self.enlarge)
        return decoded[0]


def as_picture(image: Picture) -> Image.Image:
    """A path, a PIL image or a uint8 RGB array as an upright RGB picture.

    Raises:
        UserError: The file cannot be read, or the array has another shape or type.
    """
    if isinstance(image, str | Path):
        return open_picture(image)
    if isinstance(image, Image.Image):
        return upright_rgb(image)
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.shape[2:] == (3,):
        return Image.fromarray(np.ascontiguousarray(image))
    what = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
    raise UserError(
        f"cannot look at {what}; give a path, a PIL image or a uint8 array (H, W, 3), RGB"
    )


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < SMALLEST:
        raise UserError(f"size {height}x{width} is too small; give at least {SMALLEST} a side")
    return height, width
