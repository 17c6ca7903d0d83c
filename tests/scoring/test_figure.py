"""The picture of a score, read back pixel by pixel."""

import io

import pytest
from PIL import Image, ImageColor

from micronet_cli.scoring.figure import BARS, BLUE, GREY, LINE, MARGIN, NAMES, PANEL, Panel, draw


def picture(storage, operations=None, top=2):
    content = draw(Panel("storage", storage), Panel("operations", operations or {}), top)
    return Image.open(io.BytesIO(content)).convert("RGB")


def bar(image, line, colour, left=MARGIN):
    """Pixels between the beginning and the end of a bar."""
    y = MARGIN + line * LINE + LINE // 4 + 1
    x = left + NAMES
    end = x
    while image.getpixel((end, y)) == ImageColor.getrgb(colour):
        end += 1
    return end - x - 1


def test_bars_are_as_long_as_their_scores():
    image = picture({"a": 0.1, "b": 0.4, "c": 0.2, "d": 0.05, "e": 0.05})
    # The largest first, then the rest: 0.4, 0.2 and 0.1 + 0.05 + 0.05.
    assert [bar(image, 1, BLUE), bar(image, 2, BLUE), bar(image, 3, GREY)] == [BARS, BARS / 2, BARS / 2]


def test_the_others_can_be_the_longest_bar():
    image = picture({"a": 0.2, "b": 0.1, "c": 0.1}, top=1)
    assert [bar(image, 1, BLUE), bar(image, 2, GREY)] == [BARS, BARS]
    image = picture({"a": 0.2, "b": 0.2, "c": 0.2}, top=1)
    assert [bar(image, 1, BLUE), bar(image, 2, GREY)] == [BARS / 2, BARS]


def test_operations_stand_in_the_right_half():
    image = picture({"a": 1.0}, {"a": 3.0, "b": 1.5})
    assert bar(image, 1, BLUE, PANEL + MARGIN) == BARS
    assert bar(image, 2, BLUE, PANEL + MARGIN) == BARS / 2
    assert bar(image, 2, GREY) == 1


SCORES = {"no layer": {}, "layers that cost nothing": {"a": 0.0, "b": 0.0}}


@pytest.mark.parametrize("scores", SCORES.values(), ids=SCORES.keys())
def test_nothing_to_show_draws_bars_of_a_pixel(scores):
    image = picture(scores)
    assert bar(image, len(scores) + 1, GREY) == 1


@pytest.mark.parametrize("top", [1, 15])
def test_picture_has_room_for_the_title_the_top_and_the_others(top):
    image = picture({"a": 1.0}, top=top)
    assert image.size == (2 * PANEL, (top + 3) * LINE + 2 * MARGIN)


def test_long_names_keep_their_end_and_stay_out_of_the_margin():
    tail = "stages.0.blocks.1." * 3 + "conv_pwl"
    image = picture({"a" * 100 + tail: 1.0})
    y = MARGIN + LINE + LINE // 4
    margin = image.crop((0, y, MARGIN, y + LINE))
    assert margin.getcolors() == [(MARGIN * LINE, (255, 255, 255))]
    same_end = picture({"b" * 10 + tail: 1.0})
    assert image.tobytes() == same_end.tobytes()
