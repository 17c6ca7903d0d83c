"""Plain text tables for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any


def text_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows under the union of their keys, the first column left-aligned, the others right-aligned.

    >>> print(text_table([{"a": "x", "b": 1}, {"a": "yy", "b": 10}]))
    a    b
    x    1
    yy  10
    """
    titles = list(dict.fromkeys(key for row in rows for key in row))
    lines = [titles]
    for row in rows:
        lines.append([str(row.get(title, "")) for title in titles])
    columns = zip(*lines, strict=True)
    widths = [max(len(cell) for cell in column) for column in columns]
    return "\n".join(_aligned(line, widths) for line in lines)


def _aligned(line: list[str], widths: list[int]) -> str:
    cells = [cell.rjust(width) for cell, width in zip(line, widths, strict=True)]
    if line:
        cells[0] = line[0].ljust(widths[0])
    return "  ".join(cells).rstrip()
