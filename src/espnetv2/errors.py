"""The one error that a user's mistake raises."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake that the user can mend: one line saying what, where and how.

    The command line prints the message without a traceback and exits with code 2.
    """


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not in a list, with the closest names that are.

    >>> print(unknown("model", "espnet2", ["espnetv2_s1_0", "eru_lm_7m"]))
    unknown model 'espnet2'; did you mean espnetv2_s1_0?
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        hint = f"did you mean {' or '.join(close)}?"
    elif len(names) <= 20:
        hint = f"choose from {', '.join(names)}"
    else:
        hint = f"there are {len(names)}, such as {', '.join(names[:3])}"
    return UserError(f"unknown {kind} {name!r}; {hint}")
