"""A picture of the sensitivities: a row a layer, a column a point, the darker the worse."""

import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

from PIL import Image, ImageDraw, ImageFont

# In pixels.
CELL = 92
NAMES = 300
LINE = 26
MARGIN = 16
FONT_PIXELS = 16

MOST_LETTERS = 34  # of a layer's name
ELLIPSIS = "..."
BLACK = "#202020"
WHITE = "#ffffff"
DARK = (24, 68, 120)
DECADES = 4  # from the largest divergence down to white
Table = Sequence[Mapping[str, Any]]


def draw(table: Table, caption: str) -> bytes:
    """A table of divergences (``sensitivity.table``) as PNG; the colour is their logarithm."""
    titles = _titles(table)
    largest = _largest(table, titles)
    page = _Page(len(table), len(titles))
    page.write(0, caption)
    for column, title in enumerate(titles):
        page.cell(1, column, title)
    for line, row in enumerate(table, start=2):
        page.write(line, _shortened(row["layer"]))
        for column, title in enumerate(titles):
            if title in row:
                divergence = row[title]
                darkness = shade(float(divergence), largest)
                page.cell(line, column, str(divergence), darkness)
    return page.png()


def shade(value: float, largest: float) -> float:
    """Darkness in [0, 1]: 1 for the largest, 0 from four decades below it.

    >>> shade(1.0, 1.0), shade(0.01, 1.0), shade(0.0, 1.0)
    (1.0, 0.5, 0.0)
    """
    above_zero = max(value, 1e-30)
    decades_below = math.log10(above_zero / largest)
    return max(0.0, 1 + decades_below / DECADES)


class _Page:
    """A white page with lines for a caption, the titles and the layers."""

    def __init__(self, layers: int, columns: int) -> None:
        width = NAMES + columns * CELL + 2 * MARGIN
        height = (layers + 2) * LINE + 2 * MARGIN
        self._image = Image.new("RGB", (width, height), WHITE)
        self._canvas = ImageDraw.Draw(self._image)
        self._font = ImageFont.load_default(size=FONT_PIXELS)

    def write(self, line: int, text: str) -> None:
        """Text that begins at the left edge."""
        where = (MARGIN, MARGIN + line * LINE)
        self._canvas.text(where, text, fill=BLACK, font=self._font)

    def cell(self, line: int, column: int, text: str, darkness: float = 0.0) -> None:
        """Right-aligned text on a ground of a darkness in [0, 1]."""
        top = MARGIN + line * LINE
        left = MARGIN + NAMES + column * CELL
        right = left + CELL
        ground = (left, top - 4, right - 2, top + LINE - 6)
        self._canvas.rectangle(ground, fill=_colour(darkness))
        ink = WHITE if darkness > 0.5 else BLACK
        self._canvas.text((right - 8, top), text, fill=ink, font=self._font, anchor="ra")

    def png(self) -> bytes:
        """The page as a file's content."""
        content = BytesIO()
        self._image.save(content, format="PNG")
        return content.getvalue()


def _titles(table: Table) -> list[str]:
    """The columns that any row has, in the order of their first use."""
    found: dict[str, None] = {}
    for row in table:
        found |= dict.fromkeys(row)
    found.pop("layer", None)
    return list(found)


def _largest(table: Table, titles: Sequence[str]) -> float:
    """The largest divergence, above 0 so that it can be divided by."""
    largest = 1e-12
    for row in table:
        for title in titles:
            value = float(row.get(title, 0))
            largest = max(largest, value)
    return largest


def _shortened(name: str) -> str:
    """A name that fits its column: what tells layers apart is at the end."""
    if len(name) <= MOST_LETTERS:
        return name
    kept = MOST_LETTERS - len(ELLIPSIS)
    return ELLIPSIS + name[-kept:]


def _colour(darkness: float) -> tuple[int, ...]:
    """From white (0) to the darkest colour (1)."""
    channels = []
    for dark in DARK:
        channel = 255 + (dark - 255) * darkness
        channels.append(round(channel))
    return tuple(channels)
