"""What a running server holds: choices, engines, queue, clips. Torch loads behind the page."""

from __future__ import annotations

import asyncio
import logging
import threading
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from espnetv2.demo.lane import Lane
from espnetv2.demo.machine import Offered, engines, first_choice, own_network, published_here
from espnetv2.demo.runs import Run, find_files, find_runs
from espnetv2.demo.schema import Fields
from espnetv2.demo.settings import Settings
from espnetv2.errors import UserError, unknown

if TYPE_CHECKING:
    from espnetv2.demo.clips import Clips
    from espnetv2.demo.shelf import Choice, Ready, Shelf
    from espnetv2.weights.load import Loaded

log = logging.getLogger("espnetv2")
SAMPLE = Path(__file__).with_name("static") / "samples" / "street.jpg"


class House:
    """Everything behind the page.

    Args:
        settings: Of the server.

    Raises:
        UserError: `--weights` or `--runs` name nothing usable.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.lane = Lane(settings.waiting)
        self.published, self.absent = published_here()
        self.named: list[Offered] = []
        if settings.weights is not None and settings.weights.endswith(".safetensors"):
            path = _file(settings.weights)
            self.named = [own_network(path.stem, path)]
        self.engines = engines()
        self.first = first_choice(settings, self.offered())
        self.ready = False
        self.trouble = ""
        self._imports = threading.Lock()
        self.fields: dict[tuple[str, str], Fields] = {}  # a few dozen units at most, small
        self._clips: Clips | None = None

    def runs(self) -> list[Run]:
        """Own runs as they are now; training may be going on."""
        return [] if self.settings.runs is None else find_runs(self.settings.runs)

    def offered(self) -> dict[str, Offered]:
        """Every network that can be chosen, by the name that requests use."""
        found = {one.name: one for one in (*self.named, *self.published)}
        runs = {} if self.settings.runs is None else find_files(self.settings.runs)
        for name, file in runs.items():
            try:
                found[f"run:{name}"] = own_network(f"run:{name}", file)
            except UserError as error:
                log.warning("left out: %s", error)
        return found

    def choose(self, network: str, engine: str | None, precision: str | None) -> Choice:
        """A request's words as a choice.

        Raises:
            UserError: One of them is not offered.
        """
        from espnetv2.demo.shelf import Choice

        offered = self.offered()
        network = network or self.first
        if network not in offered:
            raise unknown("network", network, offered)
        engine = engine or next(iter(self.engines))
        if engine not in self.engines:
            raise unknown("engine", engine, self.engines)
        precision = precision or "fp32"
        if precision not in self.engines[engine]:
            raise unknown(f"precision of {engine}", precision, self.engines[engine])
        return Choice(offered[network], engine, precision)

    @cached_property
    def shelf(self) -> Shelf[Choice, Ready]:
        """Loaded choices."""
        from espnetv2.demo.shelf import Shelf, open_choice

        return Shelf(lambda choice: open_choice(choice, self.settings.threads), room=6)

    def network(self, offered: Offered) -> Loaded:
        """The train form of a network that is looked into."""
        self._import()
        return self._networks.get(offered)

    @cached_property
    def _networks(self) -> Shelf[Offered, Loaded]:
        from espnetv2.demo.shelf import Shelf, open_network

        return Shelf(open_network, room=2)

    @property
    def clips(self) -> Clips:
        """Videos at work.

        Raises:
            UserError: The package that reads videos is not installed.
        """
        if not self.can_film:
            raise UserError('videos need the package av: pip install "espnetv2[video]"')
        if self._clips is None:
            from espnetv2.demo.clips import Clips

            self._clips = Clips(self.settings, self.lane)
        return self._clips

    @property
    def can_film(self) -> bool:
        """Whether videos can be read."""
        return find_spec("av") is not None

    async def open(self, network: str, engine: str | None, precision: str | None) -> Ready:
        """A choice, loaded now if it was not."""

        def load() -> Ready:
            self._import()
            return self.shelf.get(self.choose(network, engine, precision))

        if self.ready and (found := self.shelf.ready(self.choose(network, engine, precision))):
            return found
        return await asyncio.to_thread(load)

    def warm_up(self) -> None:
        """Load the first choice and look at a sample, so that the first visitor need not wait."""
        start = perf_counter()
        try:
            self._import()
            from espnetv2.demo.look import look, read_upload

            ready = self.shelf.get(self.choose(self.first, None, None))
            upload = read_upload(SAMPLE.read_bytes(), max_pixels=self.settings.picture_pixels)
            self.lane.turn(lambda: look(ready, upload, wait=0, mask=True, preview=False))
        except Exception as error:  # said at /health; other choices may work
            self.trouble = str(error)
            log.warning("%s could not be warmed up: %s", self.first, error)
        self.ready = True
        log.info("ready after %.1f s", perf_counter() - start)

    def close(self) -> None:
        """Stop what runs and remove what was kept."""
        if self._clips is not None:
            self._clips.close()
        self.lane.close()

    def describe(self) -> dict[str, Any]:
        """What the page lets people choose from."""
        settings = self.settings
        return {
            "networks": [
                {
                    "name": one.name,
                    "task": one.task,
                    "model": one.model,
                    "about": one.about,
                    "own": one.own,
                    "unfolds": one.unfolds,
                }
                for one in self.offered().values()
            ],
            "absent": self.absent,
            "engines": [
                {"name": name, "precisions": list(precisions)}
                for name, precisions in self.engines.items()
            ],
            "first": self.first,
            "clips": self.can_film,
            "runs": settings.runs is not None,
            "limits": {
                "picture_bytes": settings.picture_bytes,
                "picture_pixels": settings.picture_pixels,
                "clip_bytes": settings.clip_bytes,
                "clip_frames": settings.clip_frames,
            },
        }

    def _import(self) -> None:
        """Import what computes, once, whoever comes first."""
        with self._imports:
            import espnetv2.demo.inside
            import espnetv2.demo.look
            import espnetv2.demo.shelf  # noqa: F401


def _file(place: str) -> Path:
    path = Path(place)
    if not path.is_file():
        raise UserError(f"{place}: no such file; name a published network or a weights file")
    return path
