"""Turns with a made-up clock: who is measured when, how often, and what is left of an interrupted round."""

import pytest

from micronet_cli.latency.rounds import LEAST_ROUNDS, Rounds, Spread, times_faster
from tests.latency.fake import Clock


def rounds_of(**seconds):
    """Rounds of calls that take so many seconds; the order of the calls."""
    clock = Clock()
    order = []

    def call_of(name):
        def call():
            order.append(name)
            clock.now += seconds[name]

        return call

    return Rounds({name: call_of(name) for name in seconds}, clock), order


def test_each_round_begins_with_the_next_call():
    rounds, order = rounds_of(a=1.0, b=2.0)
    rounds.measure(0.0)
    assert order == [*"aaaabbbb", *"ab", *"ba", *"ab", *"ba", *"ab"]
    assert rounds.seconds == {"a": [1.0] * LEAST_ROUNDS, "b": [2.0] * LEAST_ROUNDS}


def test_as_many_rounds_as_fit():
    rounds, _ = rounds_of(a=1.0, b=1.0)
    rounds.measure(20.0)
    assert len(rounds.seconds["a"]) == 10


def test_a_fast_call_is_repeated_with_warm_caches():
    rounds, order = rounds_of(fast=1 / 512, slow=1.0)
    rounds.measure(0.0)
    assert order.count("fast") == 4 + LEAST_ROUNDS * (1 + 6)
    assert rounds.seconds["fast"] == [1 / 512] * LEAST_ROUNDS


def test_what_was_measured_before_an_interruption_stays():
    rounds, order = rounds_of(a=1.0, b=1.0)
    a, b = rounds.calls.values()

    def interrupted():
        if len(order) > 13:
            raise KeyboardInterrupt
        b()

    rounds.calls = {"a": a, "b": interrupted}
    with pytest.raises(KeyboardInterrupt):
        rounds.measure(100.0)
    assert rounds.seconds == {"a": [1.0] * 3, "b": [1.0] * 3}


def test_spread_of_one_value_and_of_two():
    assert Spread.of([3.0]) == Spread(3.0, 3.0, 3.0)
    assert Spread.of([1.0, 2.0]) == Spread(1.25, 1.5, 1.75)


def test_ratio_is_taken_round_by_round():
    """A disturbance that slows a whole round down leaves its ratio as it is."""
    assert times_faster([1.0, 10.0, 1.0], [2.0, 20.0, 2.0]) == 2.0
    assert times_faster([1.0, 1.0], [2.0]) == 2.0


def test_calls_that_are_held_up_do_not_decide():
    """One slow call among the trials, or in a turn, changes neither the number of repeats nor the turn's seconds."""
    clock = Clock()
    trials = [1.0, 1 / 512, 1.0, 1 / 512]
    turn = [1 / 512, 1 / 512, 5.0, 1 / 512]
    durations = iter([*trials, *turn, *[1 / 512] * 100])

    def call():
        clock.now += next(durations)

    rounds = Rounds({"fast": call}, clock)
    rounds.measure(0.0)
    assert rounds.seconds["fast"] == [1 / 512] * LEAST_ROUNDS
