"""Guards what the command line answers without a traceback, and the near misses that it names."""

from typing import NamedTuple

import pytest

from micronet_cli.errors import Interrupted, JobsFailed, UserError, near_misses


class Missed(NamedTuple):
    name: str
    answer: str


MISSED = {
    "one": Missed("epoch", "; did you mean epochs?"),
    "two, nearest first": Missed("milestone", "; did you mean milestones or milestone_?"),
    "none is alike": Missed("zzz", ""),
    "empty": Missed("", ""),
}


@pytest.mark.parametrize("missed", MISSED.values(), ids=MISSED.keys())
def test_near_misses_are_named(missed):
    assert near_misses(missed.name, ["epochs", "milestones", "milestone_", "lr"]) == missed.answer


def test_at_most_three_near_misses_are_named():
    assert near_misses("layer", [f"layer{i}" for i in range(5)]).count(" or ") == 2


def test_near_misses_take_any_iterable():
    assert near_misses("ab", iter(["abc"])) == "; did you mean abc?"


def test_failed_jobs_are_a_users_mistake_with_a_line_each():
    error = JobsFailed("2 of 5 jobs failed:", ["1: a", "3: b"], exit_code=1)
    assert isinstance(error, UserError)
    assert str(error) == "1: a\n3: b"
    assert (error.heading, error.exit_code) == ("2 of 5 jobs failed:", 1)


def test_a_mistake_exits_with_two():
    assert UserError("x").exit_code == 2


def test_an_interruption_is_no_mistake():
    assert not issubclass(Interrupted, UserError)
