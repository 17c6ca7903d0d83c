"""Plain text tables: what a terminal shows, to the last space."""

from typing import NamedTuple

import pytest

from micronet_cli.tables import decimal, text_table


def test_rows_stand_under_the_union_of_their_keys_in_order_of_first_use():
    rows = [{"name": "a", "bits": 4}, {"name": "bb", "score": 0.5}]
    assert text_table(rows).splitlines() == [
        "name  bits  score",
        "a        4",
        "bb            0.5",
    ]


def test_first_column_is_left_aligned_and_the_others_right_aligned():
    assert text_table([{"x": "long name", "y": 1}, {"x": "s", "y": 1000}]).splitlines() == [
        "x             y",
        "long name     1",
        "s          1000",
    ]


def test_one_column_has_no_trailing_spaces():
    assert text_table([{"a": "x"}, {"a": "yyy"}]) == "a\nx\nyyy"


def test_no_rows_make_an_empty_table():
    assert text_table([]) == ""


class Shown(NamedTuple):
    value: float
    text: str


DECIMALS = {
    "enough digits": Shown(0.42127, "0.42127"),
    "as many as there are decimals": Shown(0.00222, "0.00222"),
    "a small number keeps three digits": Shown(0.000123456, "0.000123"),
    "far below": Shown(-4.2e-8, "-0.0000000420"),
    "a power of ten": Shown(1e-6, "0.00000100"),
    "nothing": Shown(0.0, "0.00000"),
    "a large number": Shown(123.4567891, "123.45679"),
}


@pytest.mark.parametrize("shown", DECIMALS.values(), ids=DECIMALS.keys())
def test_small_numbers_keep_their_first_digits(shown):
    assert decimal(shown.value, 5) == shown.text
