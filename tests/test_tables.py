"""Plain text tables: what a terminal shows, to the last space."""

from micronet_cli.tables import text_table


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
