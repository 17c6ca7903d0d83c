"""Sparsity schedules: golden values, stairs that only rise, impossible settings."""

import itertools

import pytest

from micronet_cli.functional.schedules import AGP, Constant, Exponential, Linear, OneShot

WINDOWED = [Linear, AGP, Exponential]


def test_golden_values_within_the_window():
    window = {"begin": 0.25, "end": 0.75}
    assert [Linear(**window)(p) for p in (0.25, 0.375, 0.5, 0.75)] == [0, 0.25, 0.5, 1]
    assert [AGP(**window)(p) for p in (0.25, 0.5, 0.75)] == [0, 0.875, 1]
    # (1 - 2^-1) / (1 - 2^-2) and (1 - 2^-2) / (1 - 2^-4)
    assert Exponential(**window, rate=2)(0.5) == 0.5 / 0.75
    assert Exponential(**window, rate=4)(0.5) == 0.75 / 0.9375


@pytest.mark.parametrize("schedule", WINDOWED)
def test_nothing_before_begin_everything_from_end_on(schedule):
    values = [schedule(begin=0.2, end=0.6)(p) for p in (0.0, 0.2, 0.6, 0.61, 1.0)]
    assert values == [0, 0, 1, 1, 1]


@pytest.mark.parametrize("schedule", WINDOWED)
def test_stairs_only_rise_and_are_as_many_as_asked(schedule):
    values = [schedule(end=0.5, interval=0.05)(step / 1000) for step in range(1001)]
    assert len(set(values)) == 11
    assert values == sorted(values)


def test_exponential_can_keep_equal_factors():
    kept = [1 - 0.75 * Exponential(end=1.0, rate=2.0)(t) for t in (0, 0.25, 0.5, 0.75, 1)]
    factors = [after / before for before, after in itertools.pairwise(kept)]
    assert factors == pytest.approx([0.5**0.5] * 4)


def test_one_shot_is_a_jump():
    assert [OneShot(0.5)(p) for p in (0.0, 0.499, 0.5, 1.0)] == [0, 0, 1, 1]
    assert [OneShot(1.0)(p) for p in (0.999, 1.0)] == [0, 1]
    assert [Constant()(p) for p in (0.0, 1.0)] == [1, 1]


@pytest.mark.parametrize("schedule", WINDOWED)
@pytest.mark.parametrize("window", [{"begin": 0.5, "end": 0.5}, {"begin": -0.1}, {"end": 1.5}, {"interval": 2}])
def test_impossible_windows_are_refused(schedule, window):
    with pytest.raises(ValueError, match="must"):
        schedule(**window)


@pytest.mark.parametrize("build", [lambda: OneShot(1.5), lambda: Exponential(rate=0), lambda: Exponential(rate=-1)])
def test_impossible_values_are_refused(build):
    with pytest.raises(ValueError, match="must"):
        build()
