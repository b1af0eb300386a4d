"""A video through the network: drawn frames in, one MP4 and a summary out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from espnetv2.predict.media import Source
from espnetv2.predict.output import draw, save_json
from espnetv2.predict.pipeline import Clock, Look, Tiles, look_at
from espnetv2.predict.predictor import Predictor, Result
from espnetv2.predict.video import VideoReader, VideoWriter
from espnetv2.tasks.results import Classification, Detections


class Totals:
    """What was found in the frames seen so far, without keeping them."""

    def __init__(self) -> None:
        self.frames = 0
        self._sums: Counter[str] = Counter()
        self._frames_with: Counter[str] = Counter()

    def add(self, result: Result) -> None:
        """Count one more frame."""
        self.frames += 1
        if isinstance(result, Classification):
            self._frames_with[result.labels[0]] += 1
        elif isinstance(result, Detections):
            found = Counter(result.classes[label] for label in result.labels.tolist())
            self._sums.update(found)
            self._frames_with.update(found.keys())
        else:
            for name, share in result.shares.items():
                self._sums[name] += share  # type: ignore[assignment]

    def to_json(self, task: str) -> dict[str, Any]:
        """Mean shares, or frames by best class, or boxes and frames by class."""
        if task == "classification":
            return {"frames_by_best": dict(self._frames_with.most_common())}
        if task == "detection":
            return {
                "boxes": dict(self._sums.most_common()),
                "frames_with": dict(self._frames_with.most_common()),
            }
        shares = self._sums.most_common()
        return {"mean_shares": {name: round(total / self.frames, 6) for name, total in shares}}


def save_clip(
    predictor: Predictor,
    source: Source,
    out: Path,
    *,
    batch_size: int = 1,
    tiles: Tiles | None = None,
    limit: int | None = None,
    opacity: float = 0.5,
    clock: Clock | None = None,
    advance: Callable[[int], None] = lambda frames: None,
) -> dict[str, Any]:
    """Write `NAME.mp4`, the frames drawn on, and `NAME.json`; returns what the latter says.

    The video has the source's size and rate, upright, without sound. A camera runs until
    `limit` frames or Ctrl-C, which ends it orderly; a file that is broken off leaves nothing.

    Args:
        predictor: What looks at the frames.
        source: A video or camera.
        out: Folder for the results.
        batch_size: Frames that go through the network together.
        tiles: Segment in tiles.
        limit: Frames at most.
        opacity: Of the colours over a segmented frame.
        clock: Is advanced.
        advance: Called after each frame with the number of frames in all, 0 if unknown.

    Raises:
        UserError: The source cannot be read or the folder not be written.
    """
    totals, camera = Totals(), source.kind == "camera"
    video, summary = out / f"{source.name}.mp4", out / f"{source.name}.json"
    with VideoReader(source.place, camera=camera) as reader:
        count = min(reader.frames or limit or 0, limit or reader.frames)
        frames: Iterator[Look] = (Look(source, image=frame) for frame in islice(reader, limit))
        looks = look_at(predictor, frames, batch_size=batch_size, tiles=tiles, clock=clock)
        # the frames' thread must have ended before the reader closes
        with VideoWriter(video, rate=reader.rate) as writer, closing(looks):
            try:
                for look in looks:
                    writer.write(_drawn(look, totals, opacity=opacity, score=predictor.score))
                    advance(count)
            except KeyboardInterrupt:
                if not (camera and totals.frames):
                    raise
        height, width = reader.size
        record = {
            "input": source.place,
            "frames": totals.frames,
            "damaged_packets": reader.damaged,
            "height": height,
            "width": width,
            "frames_per_second": round(float(reader.rate), 3),
            "task": predictor.task,
            **totals.to_json(predictor.task),
            "files": [str(video), str(summary)],
        }
    save_json(record, summary)
    return record


def _drawn(look: Look, totals: Totals, *, opacity: float, score: float) -> Image.Image:
    assert look.image is not None
    assert look.result is not None
    totals.add(look.result)
    largest = max(look.image.size)
    return draw(look.result, look.image, opacity=opacity, score=score, largest=largest)
