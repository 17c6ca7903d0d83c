"""A picture of where the score sits, drawn with Pillow: a plotting library would cost more time than the score."""

from collections.abc import Mapping
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

from micronet_cli.tables import decimal

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

# Pixels.
PANEL = 760
NAMES = 300
BARS = 330
LINE = 26
MARGIN = 16
GAP = 8
SPACE = 6
FONT_PIXELS = 16
LONGEST_NAME = 34  # characters
BLUE = "#4878a8"
GREY = "#9a9a9a"
BLACK = "#202020"
WHITE = "#ffffff"


class Panel(NamedTuple):
    """One half of the picture.

    Attributes:
        title: the line above the bars.
        scores: layer -> its part of the score, at least 0.
    """

    title: str
    scores: Mapping[str, float]


class _Bar(NamedTuple):
    name: str
    score: float
    colour: str


def draw(storage: Panel, operations: Panel, top: int) -> bytes:
    """Bars of the ``top`` layers by storage score and by math score, and one for all others, as PNG."""
    from PIL import Image, ImageDraw

    height = (top + 3) * LINE + 2 * MARGIN
    image = Image.new("RGB", (2 * PANEL, height), WHITE)
    canvas = ImageDraw.Draw(image)
    _draw_panel(canvas, MARGIN, storage, top)
    _draw_panel(canvas, PANEL + MARGIN, operations, top)
    content = BytesIO()
    image.save(content, format="PNG")
    return content.getvalue()


def _draw_panel(canvas: "ImageDraw", left: int, panel: Panel, top: int) -> None:
    from PIL import ImageFont

    font = ImageFont.load_default(size=FONT_PIXELS)
    whole = sum(panel.scores.values())
    bars = _bars(panel.scores, top)
    longest = max(bar.score for bar in bars) or 1.0
    canvas.text((left, MARGIN), panel.title, fill=BLACK, font=font)
    x = left + NAMES
    for line, bar in enumerate(bars, start=1):
        y = MARGIN + line * LINE + LINE // 4
        length = round(BARS * bar.score / longest)
        end = x + max(length, 1)
        bottom = y + LINE - GAP
        share = 0.0
        if whole:
            share = bar.score / whole
        name = _shortened(bar.name)
        figures = f"{decimal(bar.score, 4)}  {share:.1%}"
        canvas.text((x - GAP, y), name, fill=BLACK, font=font, anchor="ra")
        canvas.rectangle((x, y, end, bottom), fill=bar.colour)
        canvas.text((end + SPACE, y), figures, fill=BLACK, font=font)


def _bars(scores: Mapping[str, float], top: int) -> list[_Bar]:
    """The ``top`` largest, of equal ones the earlier first, and what all others sum to."""
    ranked = sorted(scores, key=lambda name: -scores[name])
    bars = [_Bar(name, scores[name], BLUE) for name in ranked[:top]]
    others = max(len(scores) - top, 0)
    shown = sum(bar.score for bar in bars)
    rest = sum(scores.values()) - shown
    last = _Bar(f"{others} others", rest, GREY)
    return [*bars, last]


def _shortened(name: str) -> str:
    """The end of a long name, which tells layers apart."""
    if len(name) <= LONGEST_NAME:
        return name
    return "..." + name[3 - LONGEST_NAME :]
