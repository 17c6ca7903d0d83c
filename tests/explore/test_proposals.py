"""A sampler that depends on the trial's number alone, and distributions."""

import pytest

from micronet_cli.explore.proposals import NumberedSampler, distribution, sampler
from micronet_cli.explore.search import Choices, Interval

optuna = pytest.importorskip("optuna")


def test_what_is_proposed_depends_on_the_number_not_on_the_process():
    def proposals(numbers):
        asked = iter(numbers)
        own = NumberedSampler(lambda number: sampler("RandomSampler", 5, number, optuna), lambda _: next(asked))
        study = optuna.create_study(sampler=own)
        return [study.ask({"a": distribution(Interval(0.0, 1.0), optuna)}).params["a"] for _ in numbers]

    forwards = proposals([0, 1, 2])
    assert proposals([2, 0, 1]) == [forwards[2], forwards[0], forwards[1]]
    assert len(set(forwards)) == 3


def test_distributions_keep_whole_numbers_and_choices():
    kinds = optuna.distributions
    assert distribution(Interval(1, 9, step=2), optuna) == kinds.IntDistribution(1, 9, step=2)
    assert distribution(Interval(1, 9.5), optuna) == kinds.FloatDistribution(1, 9.5)
    assert distribution(Interval(1e-3, 1.0, log=True), optuna) == kinds.FloatDistribution(1e-3, 1.0, log=True)
    assert distribution(Choices((None, "x")), optuna) == kinds.CategoricalDistribution((None, "x"))
