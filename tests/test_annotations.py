"""Guards what an annotation asks of a config value, and the words in which a user is told."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Optional

import pytest

from micronet_cli.annotations import describe, fits, is_callable, is_dataclass, is_union


@dataclass(frozen=True)
class Leaf:
    size: int
    rate: float = 0.5


class Kind(NamedTuple):
    annotation: Any
    words: str
    good: Any
    bad: Any


KINDS = {
    "number": Kind(float, "a number", good=1, bad=True),
    "whole number": Kind(int, "a whole number", good=1, bad=1.5),
    "no truth value": Kind(int, "a whole number", good=0, bad=False),
    "truth value": Kind(bool, "true or false", good=True, bad=1),
    "text": Kind(str, "text", good="", bad=None),
    "list": Kind(list[int], "a list", good=[1], bad="ab"),
    "tuple": Kind(tuple[int, ...], "a list", good=(1,), bad=[1]),
    "mapping": Kind(Mapping[str, int], "a mapping", good={}, bad="a"),
    "dict": Kind(dict, "a mapping", good={"a": 1}, bad=[]),
    "function": Kind(Callable[..., Any], "the dotted path of a function", good=len, bad=3),
    "dataclass": Kind(Leaf, "a mapping with the keys size, rate", good=Leaf(1), bad=7),
    "choice": Kind(Literal["keep", 2], "keep or 2", good=2, bad="drop"),
    "null": Kind(None, "null", good=None, bad=0),
}


@pytest.mark.parametrize("case", KINDS.values(), ids=KINDS.keys())
def test_kind_has_words_and_tells_values_apart(case):
    assert describe(case.annotation) == case.words
    assert fits(case.good, case.annotation)
    assert not fits(case.bad, case.annotation)


def test_anything_fits_any():
    assert fits(object(), Any)


def test_union_is_described_member_by_member():
    assert describe(Leaf | float | None) == "a mapping with the keys size, rate or a number or null"


def test_unions_and_callables_are_known_in_either_spelling():
    assert is_union(int | None)
    assert is_union(Optional[int])  # noqa: UP045
    assert not is_union(int)
    assert is_callable(Callable)
    assert is_callable(Callable[[int], str])
    assert not is_callable(len)


def test_dataclass_is_the_class_and_no_instance():
    assert is_dataclass(Leaf)
    assert not is_dataclass(Leaf(1))
