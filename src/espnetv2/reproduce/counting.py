"""Rows of parameters and multiply-adds, counted on networks that are built for it."""

from __future__ import annotations

from functools import cache
from typing import Any

from espnetv2.models.catalog import counts, entry
from espnetv2.profiling.complexity import Complexity, measure_by_name
from espnetv2.reproduce.row import Row

Others = tuple[tuple[str, float], ...]


@cache
def count(name: str, *, size: tuple[int, int] | None = None) -> Complexity:
    """Parameters and multiply-adds of a network; nothing is computed or kept in memory."""
    return measure_by_name(name, size=size)


def parameters(name: str, printed: str, what: str, *, note: str = "") -> Row:
    """The row of a network's parameters, in the official layout and without idle ones (D3)."""
    found = _found(name)
    live = found["live_parameters"]
    others: Others = ()
    if live != found["parameters"]:
        others = (("without idle ones (D3)", live),)
    return Row(
        f"{what}, parameters",
        printed,
        found["parameters"],
        "counted",
        name,
        others=others,
        note=note or _made_by(name),
    )


def macs(
    name: str,
    printed: str,
    what: str,
    *,
    size: tuple[int, int] | None = None,
    others: Others = (),
    note: str = "",
) -> Row:
    """The row of a network's multiply-adds: convolutions, as the papers count (D24).

    Args:
        size: (height, width); None for the network's own.
        others: Further ways of counting, by name.
    """
    found = _found(name, size=size)
    ways: list[tuple[str, float]] = list(others)
    if found["linear_macs"]:
        ways.append(("with the linear layer", found["macs"] + found["linear_macs"]))
    if found["transposed_macs"]:
        ways.append(("with transposed ones", found["macs"] + found["transposed_macs"]))
    return Row(
        f"{what}, MACs",
        printed,
        found["macs"],
        "counted",
        name,
        others=tuple(ways),
        note=note or _made_by(name),
    )


def pair(name: str, printed: tuple[str, str], what: str) -> list[Row]:
    """The rows of both."""
    return [parameters(name, printed[0], what), macs(name, printed[1], what)]


def _found(name: str, *, size: tuple[int, int] | None = None) -> dict[str, Any]:
    """Networks of others come from the table of counts: their packages need not be installed."""
    if size is None and name in counts() and entry(name.partition(".")[0]).baseline:
        return dict(counts()[name])
    counted = count(name, size=size)
    keys = ("parameters", "live_parameters", "macs", "transposed_macs", "linear_macs")
    return {key: getattr(counted, key) for key in keys}


def _made_by(name: str) -> str:
    """A network of others is somebody's implementation, which need not be the one counted."""
    from espnetv2.models.baselines import BASELINES

    return BASELINES[name].note if name in BASELINES else ""
