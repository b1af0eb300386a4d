"""Questions about sizes that a tracer may hold as symbols (torch.export, torch.compile).

Plain Python comparisons of such sizes become guards, which tie the traced graph to some sizes;
these do not. The functions of torch behind them are imported late, since they take long to import
and only tracers need them.
"""

from __future__ import annotations

import torch


def known(*sides: int) -> bool:
    """Whether all sides are numbers, not symbols that stand for any size.

    >>> known(64, 96)
    True
    """
    if not torch.compiler.is_compiling():
        return True
    from torch.fx.experimental.symbolic_shapes import has_static_value

    return all(has_static_value(side) for side in sides)


def surely_equal(size: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether two sizes are equal for every value of the symbols in them.

    >>> surely_equal((64, 96), (64, 97))
    False
    """
    if not torch.compiler.is_compiling():
        return size == other
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return all(statically_known_true(a == b) for a, b in zip(size, other, strict=True))
