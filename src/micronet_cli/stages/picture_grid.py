"""Captioned pictures in a grid, as PNG."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from PIL import Image, ImageDraw, ImageFont, ImageOps
from torchvision.transforms.functional import to_pil_image, to_tensor
from torchvision.utils import make_grid

COLUMNS = 6
# Pixels.
SIDE = 144
GAP = 8
LINE = 16
FONT_PIXELS = 13
BLACK, WHITE = "#202020", "#ffffff"


@dataclass(frozen=True)
class Captioned:
    """A picture with its lines of text, which are cut where they are too long."""

    picture: Image.Image
    lines: tuple[str, ...]


def draw(pictures: Sequence[Captioned]) -> bytes:
    """The pictures row by row, ``COLUMNS`` in a row."""
    tiles = [to_tensor(_tile(captioned)) for captioned in pictures]
    grid = make_grid(tiles, nrow=COLUMNS, padding=GAP, pad_value=1.0)
    content = BytesIO()
    to_pil_image(grid).save(content, format="PNG")
    return content.getvalue()


def _tile(captioned: Captioned) -> Image.Image:
    font = ImageFont.load_default(size=FONT_PIXELS)
    height = SIDE + LINE * len(captioned.lines)
    tile = Image.new("RGB", (SIDE, height), WHITE)
    square = ImageOps.pad(captioned.picture, (SIDE, SIDE), color=WHITE)
    tile.paste(square)
    canvas = ImageDraw.Draw(tile)
    for number, line in enumerate(captioned.lines):
        top = SIDE + number * LINE
        canvas.text((0, top), _fitting(line, font), fill=BLACK, font=font)
    return tile


def _fitting(line: str, font: Any) -> str:
    """The line, or as much of its beginning as there is room for."""
    if font.getlength(line) <= SIDE:
        return line
    while line and font.getlength(f"{line}...") > SIDE:
        line = line[:-1]
    return f"{line}..."
