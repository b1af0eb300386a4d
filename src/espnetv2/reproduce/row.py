"""One line of a reproduced table: what the paper prints, what we have, how far apart they are."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Literal

How = Literal[
    "counted",
    "official weights on real data",
    "trained here at small scale",
    "measured here",
    "needs data",
]
"""How our value came to be; "needs data" stands where there is none."""

_UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9}
_PRINTED = re.compile(r"(about )?([\d.]+)(?: ?([KMB]))?")


@dataclass(frozen=True)
class Row:
    """A value of a paper and ours.

    Attributes:
        what: Of which network, and which quantity.
        paper: As printed, such as "1.24 M"; empty where the paper prints nothing.
        ours: A number in plain units (1240000, not 1.24 M) or a text; None where there is none.
        evidence: Where to look: `FILE#key/key` in the repository, a published name, or a command.
        others: Ours under other ways of counting, by a word for each; the papers do not always
            use one way (D95).
        unit: Of our number, where the paper's text does not say.
        note: What a reader must know.
        comparable: Whether the two numbers are about the same thing.
    """

    what: str
    paper: str
    ours: float | str | None
    how: How
    evidence: str = ""
    others: tuple[tuple[str, float], ...] = ()
    unit: str = ""
    note: str = ""
    comparable: bool = True

    @property
    def shown(self) -> str:
        """Our value as people read it: large counts in full."""
        if self.ours is None:
            return ""
        if isinstance(self.ours, str):
            return self.ours
        if float(self.ours).is_integer() and abs(self.ours) >= 1000:
            return f"{int(self.ours):,}{self.unit and ' ' + self.unit}"
        number = f"{self.ours:.2f}" if abs(self.ours) >= 1 else f"{self.ours:.5g}"
        if isinstance(self.ours, int):
            number = str(self.ours)
        return f"{number}{self.unit and ' ' + self.unit}"

    @property
    def gap(self) -> str:
        """How ours differs: "equal" means to the last digit that the paper prints."""
        if not self.paper or self.ours is None:
            return ""
        if not self.comparable:
            return "not comparable"
        if isinstance(self.ours, str):
            return "equal" if self.ours == self.paper else "differs"
        printed = parse(self.paper)
        if printed is None:
            return ""
        return _compare(printed, (("", float(self.ours)), *self.others))

    def to_json(self) -> dict[str, Any]:
        """Plain values, the computed ones too."""
        ours = round(self.ours, 9) if isinstance(self.ours, float) else self.ours
        document: dict[str, Any] = {
            "what": self.what,
            "paper": self.paper,
            "ours": ours,
            "shown": self.shown,
            "gap": self.gap,
            "how": self.how,
            "evidence": self.evidence,
        }
        if self.others:
            document["others"] = dict(self.others)
        if self.note:
            document["note"] = self.note
        return document


@dataclass(frozen=True)
class Printed:
    """A number as a paper prints it: 1.24 M has the value 1.24, 2 decimals and the unit M."""

    value: float
    decimals: int
    unit: str

    def matches(self, ours: float, *, cut: bool = False) -> bool:
        """Whether ours, rounded or cut to these digits, is this number."""
        scaled = ours / _UNITS[self.unit] * 10**self.decimals
        whole = math.floor(scaled + 1e-9) if cut else math.floor(scaled + 0.5)
        return bool(whole == round(self.value * 10**self.decimals))


def parse(text: str) -> Printed | None:
    """A printed number, or None.

    >>> parse("364 K"), parse("about 70.6").value, parse("none")
    (Printed(value=364.0, decimals=0, unit='K'), 70.6, None)
    """
    found = _PRINTED.fullmatch(text)
    if found is None:
        return None
    number = found[2]
    return Printed(float(number), len(number.partition(".")[2]), found[3] or "")


def _compare(printed: Printed, values: tuple[tuple[str, float], ...]) -> str:
    """Equal under one of the ways of counting, rounded or cut (D95), or the difference.

    Only counts may be cut: of a score, the last digit is a hundredth that is missing.
    """
    for cut in (False, True) if printed.unit else (False,):
        for way, value in values:
            if printed.matches(value, cut=cut):
                return ", ".join(filter(None, ("equal", way, "cut" if cut else "")))
    difference = values[0][1] / _UNITS[printed.unit] - printed.value
    share = difference / printed.value if printed.value else math.inf
    size = f"{difference:+.{max(printed.decimals, 2)}f}{printed.unit and ' ' + printed.unit}"
    return f"{size} ({share:+.1%})" if printed.unit else size
