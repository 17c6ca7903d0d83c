"""The page that a benchmark leaves: a title, what was measured, a table."""

from collections.abc import Sequence
from pathlib import Path


def write_page(path: Path, title: str, told: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write the page as Markdown, numbers to the right of the first column, and print it."""
    lines = [_line(columns), "|---" + "|---:" * (len(columns) - 1) + "|", *map(_line, rows)]
    text = "\n".join([f"# {title}", "", told, "", *lines, ""])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    print(text)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
