"""The picture of sensitivities: its shades follow the logarithm, its size the table."""

from io import BytesIO

import pytest
from PIL import Image

from micronet_cli.explore.figure import CELL, DARK, LINE, draw, shade


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(8.0, 1.0, id="largest"),
        pytest.param(0.08, 0.5, id="two-decades-below"),
        pytest.param(8e-4, 0.0, id="four-decades-below"),
        pytest.param(8e-9, 0.0, id="far-below"),
        pytest.param(0.0, 0.0, id="zero"),
        pytest.param(-1.0, 0.0, id="negative"),
    ],
)
def test_shade_is_one_at_the_largest_and_none_four_decades_below(value, expected):
    assert shade(value, 8.0) == pytest.approx(expected, abs=1e-9)


def picture(table):
    return Image.open(BytesIO(draw(table, "caption")))


def test_draw_grows_by_a_line_a_layer_and_a_cell_a_point():
    one = picture([{"layer": "a", "w2": "1"}])
    more = picture([{"layer": "a", "w2": "1", "w3": "0.1"}, {"layer": "b", "w2": "0.5"}])
    assert one.format == "PNG"
    assert (more.width - one.width, more.height - one.height) == (CELL, LINE)


def test_draw_paints_the_largest_value_darkest():
    colours = {colour for _, colour in picture([{"layer": "a", "w2": "1"}]).getcolors(10**6)}
    assert DARK in colours
    zero = {colour for _, colour in picture([{"layer": "a", "w2": "0"}]).getcolors(10**6)}
    assert DARK not in zero


def test_draw_takes_a_table_without_rows():
    assert picture([]).height > 0
