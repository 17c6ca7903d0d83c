"""The study behind ``stage=search``: it proposes trials and remembers how they ended.

Optuna (Akiba et al., arXiv 1907.10902) does the searching; it is imported when a study is opened.
"""

import importlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from micronet_cli.errors import UserError
from micronet_cli.explore.search import Choices, Interval, Plain, Search


@dataclass(frozen=True)
class Proposal:
    """A trial to run.

    Attributes:
        number: its directory's; kept when a trial that was cut short is run again.
        settings: setting -> value.
        trial: Optuna's.
    """

    number: int
    settings: dict[str, Plain]
    trial: Any


class Study:
    """Trials in an SQLite file: what was told is kept, whatever happens to the process.

    Proposals depend on the seed, the number of the trial and the trials told so far, so that a study that is resumed
    proposes what an uninterrupted one would have.
    """

    def __init__(self, search: Search, path: Path, seed: int) -> None:
        """Open or create; trials that were cut short or failed are queued again.

        Raises:
            UserError: Optuna is not installed, or the file's study is another one.
        """
        self.search = search
        self.seed = seed
        self.optuna = load_optuna()
        self.space: dict[str, Any] = {}
        for key, values in search.dimensions.items():
            self.space[key] = distribution(values, self.optuna)
        self.study = self.optuna.create_study(
            storage=f"sqlite:///{path}",
            study_name="search",
            directions=list(search.directions.values()),
            load_if_exists=True,
        )
        self._check_same_search(path)
        for number, trial in self._latest().items():
            state = trial.state.name
            if state == "RUNNING":
                self._tell_failed(trial.number)
            if state in ("RUNNING", "FAIL"):
                self.study.enqueue_trial(trial.params, user_attrs={"number": number})

    def _check_same_search(self, path: Path) -> None:
        space = {}
        for key, values in self.space.items():
            space[key] = self.optuna.distributions.distribution_to_json(values)
        asked = {
            "objectives": self.search.directions,
            "space": space,
            "stage": self.search.stage,
            "split": self.search.split,
        }
        known = self.study.user_attrs.get("search", asked)
        # Studies of version 0.1.0 name no split: they were told figures of test.
        known = {"split": "test"} | known
        self.study.set_user_attr("search", known)
        for key, value in asked.items():
            if known[key] != value:
                # A whole space would not fit into a line.
                given, theirs = (f"={value}", known[key]) if isinstance(value, str) else ("", "another")
                raise UserError(
                    f"search.{key}{given}: the study in {str(path)!r} has {theirs}; leave resume out to start afresh"
                )

    def _latest(self) -> dict[int, Any]:
        """Number -> the latest attempt."""
        found = {}
        for trial in self.study.get_trials(deepcopy=False):
            number = trial.user_attrs.get("number", trial.number)
            found[number] = trial
        return found

    def next(self) -> Proposal | None:
        """The next trial; None when there have been enough."""
        latest = self._latest()
        states = {trial.state.name for trial in latest.values()}
        enough = len(latest) >= self.search.trials
        if enough and "WAITING" not in states:
            return None
        self.study.sampler = self._sampler(len(latest))
        trial = self.study.ask(self.space)
        new_number = max(latest, default=-1) + 1
        number = trial.user_attrs.get("number", new_number)
        trial.set_user_attr("number", number)
        return Proposal(number, dict(trial.params), trial)

    def tell(self, proposal: Proposal, values: list[float] | None, note: dict[str, Any]) -> None:
        """A trial's objectives, None where it failed; ``note`` is kept with it."""
        trial = proposal.trial
        trial.set_user_attr("note", note)
        if values is None:
            self._tell_failed(trial)
        else:
            self.study.tell(trial, values)

    def _tell_failed(self, trial: Any) -> None:
        """A trial, or its number, has no objectives."""
        failed = self.optuna.trial.TrialState.FAIL
        self.study.tell(trial, state=failed)

    def notes(self) -> list[dict[str, Any]]:
        """What was told with every trial's latest attempt that ended, by number."""
        ended = {}
        for trial in self.study.get_trials(deepcopy=False):
            told = trial.user_attrs
            if "note" in told:
                ended[told["number"]] = told["note"]
        return [ended[number] for number in sorted(ended)]

    def front(self) -> list[int]:
        """Numbers of the trials that no other is better than in everything, by the first objective, best first."""
        directions = list(self.search.directions.values())
        best = sorted(
            self.study.best_trials,
            key=lambda trial: trial.values[0],
            reverse=directions[0] == "maximize",
        )
        return [trial.user_attrs["number"] for trial in best]

    def _sampler(self, number: int) -> Any:
        samplers = self.optuna.samplers
        sequence = np.random.SeedSequence([self.seed, number])
        own_seed = int(sequence.generate_state(1)[0])
        if self.search.sampler == "QMCSampler":
            # One sequence for all trials; settings that it cannot place, choices above all, are drawn at random.
            return samplers.QMCSampler(
                seed=self.seed,
                independent_sampler=samplers.RandomSampler(seed=own_seed),
                warn_independent_sampling=False,
            )
        sampler = getattr(samplers, self.search.sampler)
        return sampler(seed=own_seed)


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


def load_optuna() -> ModuleType:
    """Optuna, quiet.

    Raises:
        UserError: it is not installed.
    """
    try:
        optuna = importlib.import_module("optuna")
    except ImportError:
        raise UserError("stage=search: optuna is not installed; pip install 'micronet-cli[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
