"""Files that are replaced whole, and an end by Ctrl-C that loses nothing."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from espnetv2.errors import UserError


class Interruptible(Protocol):
    """What is told that Ctrl-C was pressed.

    Attributes:
        interrupted: Set then: save at the next place that can be resumed from, and stop.
    """

    interrupted: bool


def write_whole(path: Path, text: str) -> None:
    """Write a text file at once or not at all.

    Raises:
        UserError: It cannot be written.
    """
    with replacing(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


@contextmanager
def replacing(path: Path, *, here: bool = True) -> Iterator[Path]:
    """A scratch file that takes the place of `path` when all went well.

    Args:
        here: Whether this process is the one that writes.
    """
    scratch = path.with_name(path.name + ".part")
    try:
        yield scratch
        if here:
            scratch.replace(path)
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror or error}); the previous one is kept: make "
            "room or choose another --out, then --resume"
        ) from error
    finally:
        if here:
            scratch.unlink(missing_ok=True)


def leave_interrupts_to_the_main_process(worker: int) -> None:
    """Of a worker: Ctrl-C reaches every process of the terminal, but one alone decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def gentle_interrupt(keeper: Interruptible) -> Iterator[None]:
    """The first Ctrl-C asks to save and stop; the second stops at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: Any) -> None:
        keeper.interrupted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
