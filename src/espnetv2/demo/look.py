"""One upload, one network: what was found, how long it took and what it cost."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from itertools import pairwise
from time import perf_counter
from typing import Any

import numpy as np
from PIL import Image

from espnetv2.data.pictures import open_picture
from espnetv2.demo.schema import Answer, ClassShare, Milliseconds, Size
from espnetv2.demo.shelf import Ready
from espnetv2.predict.predictor import Result
from espnetv2.tasks.results import SegmentationMask

LARGEST_SIDE = 2048
"""Pixels of the longer side above which a picture is reduced before anything looks at it."""


@dataclass(frozen=True)
class Upload:
    """A picture that somebody sent.

    Attributes:
        size: (height, width) as it was given, upright.
        image: As it is looked at.
        milliseconds: That decoding took.
    """

    size: tuple[int, int]
    image: Image.Image
    milliseconds: float


def read_upload(content: bytes, *, max_pixels: int) -> Upload:
    """Decode a file by its content; nothing that the sender says about it is believed.

    Raises:
        UserError: It is no picture, is damaged or has too many pixels.
    """
    start = perf_counter()
    image = open_picture("your file", content=content, max_pixels=max_pixels)
    size = (image.height, image.width)
    image.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.BILINEAR)
    return Upload(size, image, _since(start))


def look(
    ready: Ready, upload: Upload, *, wait: float, mask: bool, preview: bool
) -> tuple[Answer, Result]:
    """Run a network on a picture.

    Args:
        ready: The network in its engine.
        upload: The picture.
        wait: Milliseconds that were spent in the queue.
        mask: Whether to draw a segmentation as PNG.
        preview: Whether to give the picture back as JPEG, for browsers that cannot decode it.
    """
    predictor, image = ready.predictor, upload.image
    marks = [perf_counter()]
    tensor = predictor.preprocess(image)
    marks.append(perf_counter())
    raw = predictor.run(tensor)
    marks.append(perf_counter())
    segments = predictor.task == "segmentation"
    size = (image.height, image.width) if segments else upload.size
    (result,) = predictor.decode(raw, [size])
    record = result.to_json()
    marks.append(perf_counter())
    picture = _mask(result) if mask and isinstance(result, SegmentationMask) else None
    marks.append(perf_counter())
    steps = [1000 * (after - before) for before, after in pairwise(marks)]
    shape = (int(tensor.shape[-2]), int(tensor.shape[-1]))
    cost = ready.cost(shape)
    answer = Answer(
        network=ready.choice.network.name,
        task=predictor.task,
        engine=ready.choice.engine,
        precision=ready.choice.precision,
        threads=ready.threads,
        picture=Size(height=upload.size[0], width=upload.size[1]),
        input=Size(height=shape[0], width=shape[1]),
        result=record,
        classes=_legend(result),
        mask=picture,
        preview=as_data(image, "JPEG", quality=88) if preview else None,
        milliseconds=_milliseconds(wait, upload.milliseconds, steps),
        macs=cost.macs + cost.transposed_macs + cost.linear_macs,
        parameters=cost.live_parameters,
    )
    return answer, result


def as_data(image: Image.Image, form: str, **options: Any) -> str:
    """A picture as a data address."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    text = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:image/{form.lower()};base64,{text}"


def _milliseconds(wait: float, read: float, steps: list[float]) -> Milliseconds:
    prepare, network, decode, encode = (round(step, 2) for step in steps)
    return Milliseconds(
        wait=round(wait, 2),
        read=round(read, 2),
        prepare=prepare,
        network=network,
        decode=decode,
        encode=encode,
        server=round(read + sum(steps), 2),
    )


def _mask(result: SegmentationMask) -> str:
    return as_data(result.to_image(), "PNG", compress_level=1)


def _legend(result: Result) -> list[ClassShare]:
    if not isinstance(result, SegmentationMask):
        return []
    order = {name: index for index, name in enumerate(result.classes)}
    return [
        ClassShare(
            index=order[name],
            name=name,
            colour="#{:02x}{:02x}{:02x}".format(*result.palette[order[name]]),
            share=round(share, 6),
        )
        for name, share in result.shares.items()
    ]


def difference_of(first: np.ndarray, second: np.ndarray) -> tuple[float, str]:
    """Share of equal pixels, and a PNG that is opaque where they differ."""
    differs = first != second
    image = Image.fromarray(differs.astype(np.uint8)).convert("L")
    image.putpalette([0, 0, 0, 236, 64, 122])
    return 1 - float(differs.mean()), as_data(image, "PNG", transparency=0)


def _since(start: float) -> float:
    return 1000 * (perf_counter() - start)
