"""Videos that are looked at in the background, frame by frame, between the pictures."""

from __future__ import annotations

import copy
import secrets
import shutil
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, BinaryIO

from torch import Tensor

from espnetv2.demo.lane import FullError, Lane
from espnetv2.demo.schema import Clip
from espnetv2.demo.settings import Settings
from espnetv2.demo.shelf import Ready
from espnetv2.errors import UserError
from espnetv2.extras import require
from espnetv2.predict.clip import save_clip
from espnetv2.predict.media import Source
from espnetv2.predict.pipeline import Clock
from espnetv2.predict.predictor import Predictor

WAITING = 8
KEPT, KEPT_SECONDS = 8, 900.0
"""Results that are kept, and for how long."""
_CONTAINERS = {b"\x1aE\xdf\xa3": 0, b"ftyp": 4, b"AVI ": 8}


class CancelledError(Exception):
    """Nobody wants the clip any more."""


@dataclass
class Job:
    """One clip; `folder` holds the upload while it is needed, then the result."""

    folder: Path
    clip: Clip
    clock: Clock = field(default_factory=Clock)
    begun: float = 0.0
    ended: float = 0.0
    cancelled: bool = False

    def advance(self, total: int) -> None:
        """One more frame is drawn."""
        if self.cancelled:
            raise CancelledError
        clip, clock = self.clip, self.clock
        clip.frames, clip.total = clip.frames + 1, total
        clip.frames_per_second = round(clip.frames / max(monotonic() - self.begun, 1e-6), 2)
        clip.network_milliseconds = round(1000 * clock.model_seconds / max(clock.looks, 1), 2)


class Clips:
    """The clips of a server, by number. Every clip has a folder of its own, removed with it."""

    def __init__(self, settings: Settings, lane: Lane) -> None:
        self._settings, self._lane = settings, lane
        self._jobs: dict[str, Job] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="clips")
        self._lock = threading.Lock()

    def add(self, ready: Ready, file: BinaryIO) -> Clip:
        """Take a video in.

        Raises:
            UserError: It is no video, or its frames are too large.
            FullError: Too many wait.
        """
        check_container(file)
        self._forget()
        waiting = sum(job.clip.state in ("waiting", "working") for job in self._jobs.values())
        if waiting >= WAITING:
            raise FullError(waiting, 30)
        folder = Path(tempfile.mkdtemp(prefix="espnetv2-clip-"))
        try:
            with (folder / "upload").open("wb") as copied:
                shutil.copyfileobj(file, copied)
            check_frames(folder / "upload", self._settings.clip_pixels)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        clip = Clip(
            id=secrets.token_urlsafe(16),
            state="waiting",
            frames=0,
            total=0,
            frames_per_second=0,
            network_milliseconds=0,
            summary=None,
        )
        job = Job(folder, clip)
        with self._lock:
            self._jobs[clip.id] = job
        self._pool.submit(self._work, job, ready)
        return clip

    def get(self, number: str) -> Job | None:
        """A clip by its number."""
        return self._jobs.get(number)

    def remove(self, number: str) -> bool:
        """Stop it if need be and remove its files."""
        with self._lock:
            job = self._jobs.pop(number, None)
        if job is None:
            return False
        job.cancelled = True
        if job.clip.state in ("done", "failed"):  # else the worker removes them
            shutil.rmtree(job.folder, ignore_errors=True)
        return True

    def close(self) -> None:
        """Stop everything and leave no file."""
        for number in list(self._jobs):
            self.remove(number)
        self._pool.shutdown(wait=True)

    def _forget(self) -> None:
        done = [(job.ended, number) for number, job in self._jobs.items() if job.ended]
        done.sort()
        old = [number for ended, number in done if monotonic() - ended > KEPT_SECONDS]
        for number in {*old, *(number for _, number in done[:-KEPT])}:
            self.remove(number)

    def _work(self, job: Job, ready: Ready) -> None:
        clip = job.clip
        try:
            if job.cancelled:
                raise CancelledError
            job.begun, clip.state = monotonic(), "working"
            record = save_clip(
                in_turns(ready.predictor, self._lane),
                Source("video", str(job.folder / "upload"), "result"),
                job.folder,
                limit=self._settings.clip_frames,
                clock=job.clock,
                advance=job.advance,
            )
            clip.summary = {k: v for k, v in record.items() if k not in ("input", "files")}
            clip.state = "done"
        except UserError as error:
            clip.state, clip.error = "failed", _without_place(str(error), job.folder)
        except Exception as error:  # a hostile file raises anything in the decoders
            clip.state = "failed"
            clip.error = f"the video cannot be read to its end ({type(error).__name__})"
        finally:
            job.ended = monotonic()
            (job.folder / "upload").unlink(missing_ok=True)
            if job.cancelled or clip.state == "failed":
                shutil.rmtree(job.folder, ignore_errors=True)


def in_turns(predictor: Predictor, lane: Lane) -> Predictor:
    """The same predictor, whose network runs in the lane."""
    own = copy.copy(predictor)

    def run(batch: Tensor) -> Any:
        return lane.turn(partial(predictor.run, batch))

    own.model = run
    return own


def check_container(file: BinaryIO) -> None:
    """Refuse what does not begin as a container of pictures alone does.

    FFmpeg would also follow lists of other files and addresses (HLS, concat), which must not
    happen with a stranger's file.

    Raises:
        UserError: It is none of MP4, MOV, WebM, Matroska and AVI.
    """
    start = file.read(16)
    file.seek(0)
    if not any(start[at : at + len(magic)] == magic for magic, at in _CONTAINERS.items()):
        raise UserError("your file is not a video that is taken here: MP4, MOV, WebM, MKV or AVI")


def check_frames(path: Path, most: int) -> None:
    """Refuse frames with too many pixels before any is decoded.

    Raises:
        UserError: They have, or there is none.
    """
    av = require("av", extra="demo")
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            height, width = stream.codec_context.height, stream.codec_context.width
    except (av.error.FFmpegError, IndexError) as error:
        raise UserError("your file is damaged or holds no pictures; convert it to MP4") from error
    if not 0 < height * width <= most:
        raise UserError(
            f"frames of {width} x {height} pixels are more than the limit of {most:,}; "
            "make the video smaller"
        )


def _without_place(message: str, folder: Path) -> str:
    """A message without the name of a folder of this machine."""
    return message.replace(str(folder / "upload"), "your file").replace(str(folder), "")
