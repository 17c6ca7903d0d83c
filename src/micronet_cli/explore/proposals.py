"""What Optuna is told of a search: its sampler, made anew for every trial, and the distributions of its settings."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from micronet_cli.explore.search import Choices, Interval


class NumberedSampler:
    """A sampler of Optuna's that depends on the number of the trial, not on the trials that this process has made.

    Optuna knows the number only when the trial has begun, so the sampler is chosen then.
    """

    def __init__(self, make: Callable[[int], Any], number_of: Callable[[Any], int]) -> None:
        """Note how to make one.

        Args:
            make: number of a trial -> its sampler.
            number_of: a trial -> its number.
        """
        self._make = make
        self._number_of = number_of
        self._current = make(0)

    def before_trial(self, study: Any, trial: Any) -> None:
        """Optuna has begun ``trial``."""
        self._current = self._make(self._number_of(trial))
        self._current.before_trial(study, trial)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._current, name)


def sampler(name: str, seed: int, number: int, optuna: ModuleType) -> Any:
    """The sampler called ``name`` for the trial ``number`` of a search with ``seed``."""
    samplers = optuna.samplers
    sequence = np.random.SeedSequence([seed, number])
    own_seed = int(sequence.generate_state(1)[0])
    if name == "QMCSampler":
        # One sequence for all trials; settings that it cannot place, choices above all, are drawn at random.
        return samplers.QMCSampler(
            seed=seed,
            independent_sampler=samplers.RandomSampler(seed=own_seed),
            warn_independent_sampling=False,
        )
    kind = getattr(samplers, name)
    return kind(seed=own_seed)


def distribution(values: Choices | Interval, optuna: ModuleType) -> Any:
    """Optuna's distribution of a setting's values; whole numbers stay whole."""
    distributions = optuna.distributions
    if isinstance(values, Choices):
        return distributions.CategoricalDistribution(values.values)
    numbers = {"low": values.low, "high": values.high}
    if values.step is not None:
        numbers["step"] = values.step
    whole = all(isinstance(number, int) for number in numbers.values())
    if whole:
        return distributions.IntDistribution(**numbers, log=values.log)
    return distributions.FloatDistribution(**numbers, log=values.log)
