"""Plain text tables: never wrapped, so they can be piped and searched."""

from __future__ import annotations

from collections.abc import Sequence


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> None:
    """Print aligned columns; the first `left` to the left, the others to the right.

    A row of one cell is printed as it is, below the row that it belongs to.
    """
    full = [header, *(row for row in rows if len(row) > 1)]
    widths = [max(len(row[i]) for row in full) for i in range(len(header))]
    for row in [header, *rows]:
        if len(row) == 1:
            print(row[0])
            continue
        cells = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
