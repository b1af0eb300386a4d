"""What the page is started with, and its limits. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

MEGABYTE = 1_000_000
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Settings:
    """Of one server.

    Attributes:
        host: Address that it listens at.
        weights: Published name or weights file that the page shows first.
        runs: Folder of runs of `espnetv2 train`, or one such run.
        threads: Of the engines; as many as torch uses by default.
        waiting: Requests that may wait for the engine.
        picture_bytes: Largest picture file.
        picture_pixels: Largest picture, by its header.
        clip_bytes: Largest video file.
        clip_pixels: Largest frame.
        clip_frames: Frames of a clip that are looked at.
        body_seconds: That an upload may take.
        hosts: Names that a browser may call this server by; empty when it listens to the world.
    """

    host: str = "127.0.0.1"
    weights: str | None = None
    runs: Path | None = None
    threads: int | None = None
    waiting: int = 64
    picture_bytes: int = 20 * MEGABYTE
    picture_pixels: int = 40_000_000
    clip_bytes: int = 100 * MEGABYTE
    clip_pixels: int = 3840 * 2160
    clip_frames: int = 900
    body_seconds: float = 60.0
    hosts: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Derive the names from the address."""
        local = self.host in LOOPBACK
        object.__setattr__(self, "hosts", (*LOOPBACK, self.host) if local else ())
