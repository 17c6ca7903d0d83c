"""Plain text tables for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any


def text_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows under the union of their keys, first column left, the others right.

    >>> print(text_table([{"a": "x", "b": 1}, {"a": "yy", "b": 10}]))
    a    b
    x    1
    yy  10
    """
    titles = list(dict.fromkeys(key for row in rows for key in row))
    cells = [titles, *([str(row.get(title, "")) for title in titles] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(titles))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )
