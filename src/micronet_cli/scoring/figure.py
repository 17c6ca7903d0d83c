"""A picture of where the score sits, drawn with Pillow: a plotting library would cost more time than the score."""

from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

    from micronet_cli.scoring.score_report import ScoreReport

PANEL, NAMES, BARS, LINE, MARGIN = 760, 300, 330, 26, 16  # pixels
FONT_PIXELS = 16
BLUE, GREY, BLACK, WHITE = "#4878a8", "#9a9a9a", "#202020", "#ffffff"


def draw(report: "ScoreReport", top: int) -> bytes:
    """Bars of the ``top`` layers by storage score and by math score, and one for all others, as PNG."""
    from PIL import Image, ImageDraw

    base, total = report.base, report.total
    storage = {row.layer: row.storage_params / base.params for row in report.rows()}
    math = {row.layer: row.math_ops / base.ops for row in report.rows()}
    image = Image.new("RGB", (2 * PANEL, (top + 3) * LINE + 2 * MARGIN), WHITE)
    canvas = ImageDraw.Draw(image)
    panels = (("storage", storage, total.storage_score), ("operations", math, total.math_score))
    for left, (name, scores, whole) in zip((0, PANEL), panels, strict=True):
        title = f"{name}: {whole:.4f} of the score {total.score:.4f} ({report.rules.name})"
        _panel(canvas, left + MARGIN, title, scores, top)
    image.save(content := BytesIO(), format="PNG")
    return content.getvalue()


def _panel(canvas: "ImageDraw", left: int, title: str, scores: dict[str, float], top: int) -> None:
    from PIL import ImageFont

    font = ImageFont.load_default(size=FONT_PIXELS)
    whole = sum(scores.values())
    largest = dict(sorted(scores.items(), key=lambda item: -item[1])[:top])
    rest = f"{max(len(scores) - top, 0)} others"
    bars = [*((name, value, BLUE) for name, value in largest.items()), (rest, whole - sum(largest.values()), GREY)]
    widest = max(value for _, value, _ in bars) or 1.0
    canvas.text((left, MARGIN), title, fill=BLACK, font=font)
    for line, (name, value, colour) in enumerate(bars, start=1):
        y = MARGIN + line * LINE + LINE // 4
        x = left + NAMES
        shown = name if len(name) <= 34 else "..." + name[-31:]
        canvas.text((x - 8, y), shown, fill=BLACK, font=font, anchor="ra")
        end = x + max(round(BARS * value / widest), 1)
        canvas.rectangle((x, y, end, y + LINE - 8), fill=colour)
        share = value / whole if whole else 0.0
        canvas.text((end + 6, y), f"{value:.4f}  {share:.1%}", fill=BLACK, font=font)
