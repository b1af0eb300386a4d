"""Reading frames of a video or a camera, and writing a video."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

from espnetv2.errors import UserError
from espnetv2.extras import require
from espnetv2.predict.output import replacing

USUAL_RATE = Fraction(25)
"""Frames per second of a video that does not say."""


class VideoReader:
    """Upright RGB frames of a video file or a camera, in order.

    Frames that cannot be decoded are left out and counted in `damaged`.

    Attributes:
        size: (height, width) of the upright frames, once one was read.
        rate: Frames per second; the mean, when they are unevenly spaced.
        frames: How many there are as the file says, 0 when it does not.
        damaged: Packets left out so far.
    """

    def __init__(self, place: str, *, camera: bool = False) -> None:
        self.place, self.damaged, self.size = place, 0, (0, 0)
        self._av = require("av", extra="video")
        self._container = _open_camera(self._av, place) if camera else _open(self._av, place)
        if not self._container.streams.video:
            self._container.close()
            raise UserError(f"{place}: has no pictures, only sound; name a video")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"
        self.rate = Fraction(self._stream.average_rate or self._stream.guessed_rate or USUAL_RATE)
        self.frames = int(self._stream.frames)

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def __iter__(self) -> Iterator[Image.Image]:
        """The frames; can be walked once.

        Raises:
            UserError: None can be decoded.
        """
        good = 0
        for frame in self._decoded():
            pixels = frame.to_ndarray(format="rgb24")
            turns = round(frame.rotation / 90) % 4
            pixels = np.ascontiguousarray(np.rot90(pixels, turns))
            self.size = (pixels.shape[0], pixels.shape[1])
            good += 1
            yield Image.fromarray(pixels)
        if not good:
            raise UserError(f"{self.place}: no frame can be decoded; convert it to MP4 (H.264)")

    def _decoded(self) -> Iterator[Any]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except self._av.error.FFmpegError:  # what follows a broken container is lost
                self.damaged += 1
                return
            try:
                frames = packet.decode()
            except self._av.error.FFmpegError:
                self.damaged += 1
                continue
            yield from frames


class VideoWriter:
    """An MP4 of upright frames without sound: H.264 where FFmpeg has it, else MPEG-4.

    The file appears under its name when the block ends well and not at all when it fails.
    """

    def __init__(self, path: Path, *, rate: Fraction) -> None:
        self._path = path
        self._rate = Fraction(rate).limit_denominator(1001)  # MPEG-4 takes no finer clock
        self._av = require("av", extra="video")
        self._stack = ExitStack()
        self._stream: Any = None

    def __enter__(self) -> VideoWriter:
        return self

    def write(self, image: Image.Image) -> None:
        """Append a frame; all must be as large as the first.

        Raises:
            UserError: The folder cannot be written.
        """
        if self._stream is None:
            self._stream = self._start(image.width, image.height)
        frame = self._av.VideoFrame.from_image(image)
        self._container.mux(self._stream.encode(frame))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None and self._stream is not None:
                self._container.mux(self._stream.encode(None))
        except BaseException as late:
            self._stack.__exit__(type(late), late, late.__traceback__)
            raise
        self._stack.__exit__(kind, error, trace)

    def _start(self, width: int, height: int) -> Any:
        temporary = self._stack.enter_context(replacing(self._path))
        self._container = self._av.open(str(temporary), "w", format="mp4")
        self._stack.callback(self._container.close)
        codec = "libx264" if "libx264" in self._av.codecs_available else "mpeg4"
        stream = self._container.add_stream(codec, rate=self._rate)
        stream.width, stream.height = width, height
        # halved colour needs even sides
        stream.pix_fmt = (
            "yuv420p" if width % 2 == height % 2 == 0 or codec == "mpeg4" else "yuv444p"
        )
        if codec == "libx264":
            stream.options = {"preset": "veryfast", "crf": "21"}
        else:
            stream.bit_rate = max(1_000_000, width * height * 4)
        return stream


def _open(av: Any, place: str) -> Any:
    try:
        return av.open(place)
    except av.error.FFmpegError as error:
        raise UserError(
            f"{place}: not a video that can be read ({error.strerror}); convert it to MP4 (H.264)"
        ) from error


def _open_camera(av: Any, number: str) -> Any:
    device = f"/dev/video{number}"
    if not Path(device).exists():
        raise UserError(f"camera {number}: there is no {device}; connect it or name a file")
    try:
        return av.open(device, format="v4l2")
    except (av.error.FFmpegError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"camera {number}: {device} does not answer ({reason})") from error
