"""Plain text tables for the terminal."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

Rows = Sequence[Mapping[str, Any]]


def text_table(rows: Rows) -> str:
    """Rows under the union of their keys, the first column left-aligned, the others right-aligned.

    >>> print(text_table([{"a": "x", "b": 1}, {"a": "yy", "b": 10}]))
    a    b
    x    1
    yy  10
    """
    titles: dict[str, None] = {}
    for row in rows:
        titles |= dict.fromkeys(row)
    lines = [list(titles)]
    for row in rows:
        cells = [str(row.get(title, "")) for title in titles]
        lines.append(cells)
    widths = []
    for column in zip(*lines, strict=True):
        widest = max(column, key=len)
        widths.append(len(widest))
    aligned = []
    for cells in lines:
        aligned.append(_aligned(cells, widths))
    return "\n".join(aligned)


def decimal(value: float, decimals: int, significant: int = 3) -> str:
    """A number with so many decimals, and with more where it would lose its first ``significant`` digits.

    >>> decimal(12.3456, 2), decimal(0.01513, 5), decimal(0.0000123456, 5), decimal(0.0, 5)
    ('12.35', '0.01513', '0.0000123', '0.00000')
    """
    if 0 < abs(value) < 1:
        zeros_before = -math.floor(math.log10(abs(value))) - 1
        decimals = max(decimals, zeros_before + significant)
    return f"{value:.{decimals}f}"


def _aligned(line: list[str], widths: list[int]) -> str:
    cells: list[str] = []
    for cell, width in zip(line, widths, strict=True):
        if not cells:
            cells.append(cell.ljust(width))
        else:
            cells.append(cell.rjust(width))
    text = "  ".join(cells)
    return text.rstrip()
