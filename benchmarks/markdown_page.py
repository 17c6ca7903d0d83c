"""The page that a benchmark leaves: a title, what was measured, a table."""

import statistics
from collections.abc import Sequence
from pathlib import Path


def write_page(path: Path, title: str, told: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write the page as Markdown, numbers to the right of the first column, and print it."""
    lines = [_line(columns), "|---" + "|---:" * (len(columns) - 1) + "|", *map(_line, rows)]
    text = "\n".join([f"# {title}", "", told, "", *lines, ""])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    print(text)


def mean_and_deviation(values: Sequence[float], form: str) -> str:
    """Mean and, of several values, standard deviation, in a format such as ``+.2f``.

    >>> mean_and_deviation([80, 82], ".2f"), mean_and_deviation([80], "+.0f")
    ('81.00 ± 1.41', '+80')
    """
    mean = format(statistics.mean(values), form)
    if len(values) == 1:
        return mean
    deviation = format(statistics.stdev(values), form.lstrip("+"))
    return f"{mean} ± {deviation}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
