"""What this machine has: networks whose weights are here, engines that are installed. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from espnetv2.demo.runs import task_of
from espnetv2.demo.settings import Settings
from espnetv2.errors import UserError, unknown
from espnetv2.models.catalog import entry
from espnetv2.weights.fetch import is_here
from espnetv2.weights.published import PUBLISHED

SLOW_TO_BUILD = ("compile", "cudagraph")
"""Engines that are left out: they compile, or record, for every new size of a picture."""
TORCH_PRECISIONS = ("fp32", "bf16")
FIRST_CHOICES = ("espnetv2_seg_s0_5.camvid", "espnetv2_s0_5.imagenette")


@dataclass(frozen=True)
class Offered:
    """A network that can be chosen.

    Attributes:
        name: That requests name it by.
        task: What it does.
        place: For `espnetv2.load`: a published name or a file. Never sent to the browser.
        model: In the catalog.
        about: One line: the score, and where.
        own: Whether it comes from the command line instead of the list of published weights.
        unfolds: Whether it has EESP units, for *Inside*.
    """

    name: str
    task: str
    place: str
    model: str
    about: str
    own: bool
    unfolds: bool


def published_here() -> tuple[list[Offered], int]:
    """Published networks whose weights are on this machine, and how many are not."""
    found, absent = [], 0
    for row in PUBLISHED.values():
        task = entry(row.model).task
        if task == "language":
            continue
        if not is_here(row):
            absent += 1
            continue
        about = "" if row.score is None else f"{row.metric} {row.score:g}"
        unfolds = row.model.startswith("espnetv2_")
        found.append(Offered(row.name, task, row.name, row.model, about, False, unfolds))
    return found, absent


def own_network(name: str, file: Path) -> Offered:
    """A weights file that the command line named.

    Raises:
        UserError: It is not a file of this package, or does not take pictures.
    """
    model, task = task_of(file)
    if task == "language":
        raise UserError(f"{file}: {model} reads words; the page shows networks for pictures")
    unfolds = model.startswith("espnetv2_")
    return Offered(name, task, str(file), model, "from the command line", True, unfolds)


def first_choice(settings: Settings, offered: dict[str, Offered]) -> str:
    """The network that the page begins with.

    Raises:
        UserError: `--weights` names nothing that is here.
    """
    asked = settings.weights
    if asked is None:
        return next(name for name in (*FIRST_CHOICES, *offered) if name in offered)
    if asked in offered:
        return asked
    stem = Path(asked).stem
    if Path(asked).suffix == ".safetensors" and stem in offered:
        return stem
    raise unknown("weights", asked, offered)


def engines() -> dict[str, tuple[str, ...]]:
    """Precisions by the name of each engine that is installed with what it needs, best first."""
    from espnetv2.deploy.targets import ENGINES, TARGETS

    found: dict[str, tuple[str, ...]] = {}
    for name, row in ENGINES.items():
        if name in SLOW_TO_BUILD:
            continue
        precisions: tuple[str, ...] = TORCH_PRECISIONS
        needs = row.needs
        if row.target is not None:
            target = TARGETS[row.target]
            needs = (*needs, *target.needs)
            precisions = tuple(one for one in target.precisions if one != "int8")  # wants pictures
        if all(find_spec(package) is not None for package in needs):
            found[name] = precisions
    return found
