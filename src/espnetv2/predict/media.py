"""What there is to look at: pictures, folders, patterns, videos, cameras."""

from __future__ import annotations

import glob
import os
import queue
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from espnetv2.data.pictures import is_picture
from espnetv2.errors import UserError

VIDEO_SUFFIXES = frozenset(
    (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".flv")
)
"""What a video's file name ends with, lower case."""

T = TypeVar("T")


@dataclass(frozen=True)
class Source:
    """One picture, video or camera.

    Attributes:
        place: The file, or the number of a camera.
        name: What the files of its results begin with; no two sources of a run share it.
    """

    kind: Literal["picture", "video", "camera"]
    place: str
    name: str


def find_sources(inputs: Sequence[str], *, out: Path | None = None) -> list[Source]:
    """The sources that the user's words mean, each file once, in the order given.

    A word is a picture, a video, a folder (its pictures and videos, sorted, not those of
    sub-folders), a pattern such as "street/*.jpg" or "street/**/*.jpg", "@list.txt", a file that
    names one of them a line (see `listed`), or the number of a camera.

    Args:
        inputs: As typed.
        out: Where results go; no result may take the place of a source there.

    Raises:
        UserError: Nothing is there, or it is an address on the net.
    """
    places: dict[str, tuple[Literal["picture", "video", "camera"], str]] = {}
    for word in inputs:
        for kind, place in _expand(word):
            places.setdefault(
                str(Path(place).resolve()) if kind != "camera" else place, (kind, place)
            )
    taken: set[str] = set()
    if out is not None:
        folder = out.resolve()
        taken = {Path(place).name.lower() for place in places if Path(place).parent == folder}
    sources: list[Source] = []
    used: set[str] = set()
    for kind, place in places.values():
        name = _free_name(f"camera{place}" if kind == "camera" else Path(place).stem, used, taken)
        used.add(name.lower())
        sources.append(Source(kind, place, name))
    return sources


def find_pictures(inputs: Sequence[str]) -> list[str]:
    """Absolute paths of the pictures that the words mean, each once, in the order given.

    Takes the same words as `find_sources`, in any number: no file that a list names is looked at.

    Raises:
        UserError: As `find_sources`, and for videos and cameras.
    """
    places: dict[str, None] = {}
    for word in inputs:
        for kind, place in _expand(word):
            if kind != "picture":
                raise UserError(f"{place}: is a {kind}; only pictures can be looked at this way")
            places[os.path.abspath(place)] = None  # noqa: PTH100 - a Path keeps the dots
    return list(places)


def listed(path: Path) -> list[str]:
    """The paths that a text file names, one a line; relative ones begin at its own folder.

    Empty lines and those that begin with `#` are passed over.

    Raises:
        UserError: It cannot be read, or names nothing.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig", errors="surrogateescape").split("\n")
    except OSError as error:
        raise UserError(f"{path}: the list cannot be read ({error.strerror})") from error
    found = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not found:
        raise UserError(f"{path}: the list is empty; write one path a line")
    return [str(path.parent / place) for place in found]


PICTURE_FOLDERS = ("images", "JPEGImages")
"""Where a data set's folder keeps its pictures; looked into if it holds none itself."""


def _expand(word: str) -> Iterator[tuple[Literal["picture", "video", "camera"], str]]:
    if "://" in word:
        raise UserError(f"{word}: is an address, not a file; download it first")
    path = Path(word)
    if path.is_dir():
        found = [entry for entry in sorted(path.iterdir()) if _is_source(entry)]
        inner = [path / name for name in PICTURE_FOLDERS if (path / name).is_dir()]
        if not found and inner:
            yield from _expand(str(inner[0]))
        elif not found:
            raise UserError(f"{word}: no picture or video in this folder; name another one")
        yield from ((_kind(entry), str(entry)) for entry in found)
    elif path.exists():
        yield _kind(path), word
    elif word.startswith("@"):
        yield from ((_kind(Path(place)), place) for place in listed(Path(word[1:])))
    elif word.isdigit():
        yield "camera", word
    elif glob.has_magic(word):
        found = [Path(match) for match in sorted(glob.glob(word, recursive=True))]  # noqa: PTH207
        found = [entry for entry in found if _is_source(entry)]
        if not found:
            raise UserError(f"{word}: no picture or video has such a name; check the pattern")
        yield from ((_kind(entry), str(entry)) for entry in found)
    else:
        raise UserError(f"{word}: no such file or folder; check the path")


def _is_source(path: Path) -> bool:
    wanted = is_picture(path) or path.suffix.lower() in VIDEO_SUFFIXES
    return wanted and not path.name.startswith(".") and path.is_file()


def _kind(path: Path) -> Literal["picture", "video"]:
    return "video" if path.suffix.lower() in VIDEO_SUFFIXES else "picture"


def _free_name(stem: str, used: set[str], taken: set[str]) -> str:
    """A name like `stem` that no other source has and whose files replace no source."""
    endings = (".json", ".mp4", "_overlay.jpg", "_mask.png", "_labels.jpg", "_boxes.jpg")
    number, name = 1, stem
    while name.lower() in used or any(f"{name}{end}".lower() in taken for end in endings):
        number += 1
        name = f"{stem}-{number}"
    return name


def ahead(items: Iterable[T], *, depth: int = 4) -> Generator[T, None, None]:
    """The same items, made by a thread that stays at most `depth` ahead of who takes them.

    An error of the maker is raised at its place. Closing the generator ends the thread.
    """
    ready: queue.Queue[tuple[bool, T | BaseException | None]] = queue.Queue(depth)
    stop = threading.Event()

    def hand_over(more: bool, value: T | BaseException | None) -> None:
        while not stop.is_set():
            try:
                ready.put((more, value), timeout=0.05)
            except queue.Full:
                continue
            break

    def make() -> None:
        iterator = iter(items)
        try:
            for item in iterator:
                hand_over(True, item)
                del item  # it may be a large picture
                if stop.is_set():
                    break
            hand_over(False, None)
        except BaseException as error:  # raised again where the items are taken
            hand_over(False, error)
        finally:
            if isinstance(iterator, Generator):
                iterator.close()

    thread = threading.Thread(target=make, daemon=True, name="ahead")
    thread.start()
    try:
        while True:
            more, value = ready.get()
            if isinstance(value, BaseException) and not more:
                raise value
            if not more:
                return
            yield value  # type: ignore[misc]
            del value
    finally:
        stop.set()
        thread.join()
