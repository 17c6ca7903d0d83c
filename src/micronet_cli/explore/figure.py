"""A picture of the sensitivities: a row a layer, a column a point, the darker the worse."""

import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

from PIL import Image, ImageDraw, ImageFont

CELL, NAMES, LINE, MARGIN = 92, 300, 26, 16  # pixels
FONT_PIXELS = 16
BLACK, WHITE = "#202020", "#ffffff"
DARK = (24, 68, 120)
DECADES = 4  # from the largest divergence down to white


def draw(table: Sequence[Mapping[str, Any]], caption: str) -> bytes:
    """A table of divergences (``sensitivity.table``) as PNG; the colour is their logarithm."""
    columns = list(dict.fromkeys(title for row in table for title in row if title != "layer"))
    values = [float(row[title]) for row in table for title in columns if title in row]
    largest = max([*values, 1e-12])
    width = NAMES + len(columns) * CELL + 2 * MARGIN
    image = Image.new("RGB", (width, (len(table) + 2) * LINE + 2 * MARGIN), WHITE)
    canvas, font = ImageDraw.Draw(image), ImageFont.load_default(size=FONT_PIXELS)
    canvas.text((MARGIN, MARGIN), caption, fill=BLACK, font=font)
    for line, row in enumerate([{"layer": ""} | dict(zip(columns, columns, strict=True)), *table], start=1):
        y = MARGIN + line * LINE
        name = row["layer"]
        canvas.text((MARGIN, y), name if len(name) <= 34 else "..." + name[-31:], fill=BLACK, font=font)
        for number, title in enumerate(columns):
            x = MARGIN + NAMES + number * CELL
            share = shade(float(row[title]), largest) if line > 1 and title in row else 0.0
            colour = tuple(round(255 + (dark - 255) * share) for dark in DARK)
            canvas.rectangle((x, y - 4, x + CELL - 2, y + LINE - 6), fill=colour)
            text = str(row.get(title, ""))
            canvas.text((x + CELL - 8, y), text, fill=WHITE if share > 0.5 else BLACK, font=font, anchor="ra")
    image.save(content := BytesIO(), format="PNG")
    return content.getvalue()


def shade(value: float, largest: float) -> float:
    """Darkness in [0, 1]: 1 for the largest, 0 from four decades below it.

    >>> shade(1.0, 1.0), shade(0.01, 1.0), shade(0.0, 1.0)
    (1.0, 0.5, 0.0)
    """
    return max(0.0, 1 + math.log10(max(value, 1e-30) / largest) / DECADES)
