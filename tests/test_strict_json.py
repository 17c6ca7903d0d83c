"""What is written as JSON can be read as JSON: nothing in it is NaN or infinite."""

import json
from pathlib import Path

import pytest

from micronet_cli.strict_json import finite, json_text

NODES = {
    "nan": (float("nan"), None),
    "infinity": (float("inf"), None),
    "deep": ({"a": [1.5, {"b": float("-inf")}]}, {"a": [1.5, {"b": None}]}),
    "tuple": ((1, float("nan")), [1, None]),
    "finite": ({"top1": 90.0, "split": "val", "on": True}, {"top1": 90.0, "split": "val", "on": True}),
}


def refuse(constant):
    raise AssertionError(constant)


@pytest.mark.parametrize(("node", "expected"), NODES.values(), ids=NODES.keys())
def test_numbers_that_are_not_finite_are_null(node, expected):
    assert finite(node) == expected
    assert json.loads(json_text(node), parse_constant=refuse) == expected


def test_what_json_has_no_word_for_is_its_text():
    assert json_text({"path": Path("a")}, indent=1) == '{\n "path": "a"\n}'
