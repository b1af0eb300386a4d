"""Reading, computing and using results at the same time, without holding many pictures."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from espnetv2.data.pictures import open_picture
from espnetv2.errors import UserError
from espnetv2.predict.media import Source, ahead
from espnetv2.predict.predictor import Predictor, Result

LARGE = 32_000_000
"""Pixels above which a picture waits until the one before has been dealt with."""


@dataclass(frozen=True)
class Tiles:
    """How large pictures are cut; see `tiling.segment_tiled`."""

    tile: int = 1024
    overlap: int = 256


@dataclass(frozen=True)
class Look:
    """A picture or frame with what was found, or why it could not be read."""

    source: Source
    image: Image.Image | None = None
    result: Result | None = None
    error: UserError | None = None


@dataclass
class Clock:
    """What was done: pictures or frames, and the seconds that the network alone took."""

    looks: int = 0
    model_seconds: float = 0.0


@dataclass
class _Prepared:
    look: Look
    tensor: Tensor | None = None
    done: threading.Event | None = None


def read_pictures(sources: Iterable[Source]) -> Iterator[Look]:
    """The pictures in turn; one that cannot be read becomes a look with its error."""
    for source in sources:
        try:
            yield Look(source, image=open_picture(source.place))
        except UserError as error:
            yield Look(source, error=error)


def look_at(
    predictor: Predictor,
    looks: Iterable[Look],
    *,
    batch_size: int = 1,
    tiles: Tiles | None = None,
    clock: Clock | None = None,
) -> Generator[Look, None, None]:
    """Fill in the results, in order.

    One thread reads and preprocesses, another runs the network, the caller draws and saves.

    Args:
        predictor: What looks.
        looks: Pictures or frames without results.
        batch_size: Inputs of equal size that go through the network together, at most.
        tiles: Segment in tiles, whatever the picture's size.
        clock: Is advanced.
    """
    clock = clock or Clock()
    closed = threading.Event()
    prepared = ahead(_prepare(predictor, looks, tiles, closed), depth=max(2, batch_size))
    answered = ahead(_answer(predictor, prepared, batch_size, tiles, clock), depth=2)
    with closing(answered):
        try:
            for item in answered:
                yield item.look
                done = item.done
                del item
                if done is not None:
                    done.set()
        finally:
            closed.set()


def _prepare(
    predictor: Predictor, looks: Iterable[Look], tiles: Tiles | None, closed: threading.Event
) -> Iterator[_Prepared]:
    for look in looks:
        if look.image is None:
            yield _Prepared(look)
            continue
        whole = tiles is None and not predictor.wants_tiles(look.image)
        tensor = predictor.preprocess(look.image) if whole else None
        large = look.image.width * look.image.height > LARGE
        item = _Prepared(look, tensor, threading.Event() if large else None)
        yield item
        done = item.done
        del look, item, tensor  # a large picture must be gone before the next is read
        while done is not None and not done.wait(0.05) and not closed.is_set():
            pass


def _answer(
    predictor: Predictor,
    items: Iterable[_Prepared],
    batch_size: int,
    tiles: Tiles | None,
    clock: Clock,
) -> Iterator[_Prepared]:
    waiting: list[_Prepared] = []
    for item in items:
        fits = not waiting or _shape(item) == _shape(waiting[0])
        if not fits:
            yield from _batch(predictor, waiting, clock)
            waiting = []
        if item.look.image is None:
            yield item
        elif item.tensor is None:
            yield _Prepared(
                _in_tiles(predictor, item.look, tiles or Tiles(), clock), None, item.done
            )
        else:
            waiting.append(item)
            if len(waiting) >= batch_size or item.done is not None:
                yield from _batch(predictor, waiting, clock)
                waiting = []
        del item
    yield from _batch(predictor, waiting, clock)


def _shape(item: _Prepared) -> tuple[int, ...]:
    return () if item.tensor is None else tuple(item.tensor.shape)


def _batch(predictor: Predictor, items: list[_Prepared], clock: Clock) -> Iterator[_Prepared]:
    if not items:
        return
    start = time.perf_counter()
    raw = predictor.run(torch.cat([item.tensor for item in items if item.tensor is not None]))
    if predictor.device.type == "cuda":
        torch.cuda.synchronize(predictor.device)
    clock.model_seconds += time.perf_counter() - start
    clock.looks += len(items)
    images = [item.look.image for item in items if item.look.image is not None]
    results = predictor.decode(raw, [(image.height, image.width) for image in images])
    for item, result in zip(items, results, strict=True):
        yield _Prepared(Look(item.look.source, item.look.image, result), None, item.done)


def _in_tiles(predictor: Predictor, look: Look, tiles: Tiles, clock: Clock) -> Look:
    assert look.image is not None
    start = time.perf_counter()
    result = predictor.segment_tiled(look.image, tile=tiles.tile, overlap=tiles.overlap)
    clock.model_seconds += time.perf_counter() - start
    clock.looks += 1
    return Look(look.source, look.image, result)
