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
            if trial.state.name == "RUNNING":
                self.study.tell(trial.number, state=self.optuna.trial.TrialState.FAIL)
            if trial.state.name in ("RUNNING", "FAIL"):
                self.study.enqueue_trial(trial.params, user_attrs={"number": number})

    def _check_same_search(self, path: Path) -> None:
        space = {}
        for key, values in self.space.items():
            space[key] = self.optuna.distributions.distribution_to_json(values)
        asked = {"objectives": self.search.directions, "space": space, "stage": self.search.stage}
        known = self.study.user_attrs.get("search", asked)
        self.study.set_user_attr("search", known)
        for key, value in asked.items():
            if known[key] != value:
                raise UserError(
                    f"search.{key}: the study in {str(path)!r} has another; leave resume out to start afresh"
                )

    def _latest(self) -> dict[int, Any]:
        """Number -> the latest attempt."""
        found = {}
        for trial in self.study.get_trials(deepcopy=False):
            found[trial.user_attrs.get("number", trial.number)] = trial
        return found

    def next(self) -> Proposal | None:
        """The next trial; None when there have been enough."""
        latest = self._latest()
        waiting = any(trial.state.name == "WAITING" for trial in latest.values())
        if not waiting and len(latest) >= self.search.trials:
            return None
        self.study.sampler = self._sampler(len(latest))
        trial = self.study.ask(self.space)
        number = trial.user_attrs.get("number", max(latest, default=-1) + 1)
        trial.set_user_attr("number", number)
        return Proposal(number, dict(trial.params), trial)

    def tell(self, proposal: Proposal, values: list[float] | None, note: dict[str, Any]) -> None:
        """A trial's objectives, None where it failed; ``note`` is kept with it."""
        proposal.trial.set_user_attr("note", note)
        if values is None:
            self.study.tell(proposal.trial, state=self.optuna.trial.TrialState.FAIL)
        else:
            self.study.tell(proposal.trial, values)

    def notes(self) -> list[dict[str, Any]]:
        """What was told with every trial's latest attempt that ended, by number."""
        ended = {}
        for trial in self.study.get_trials(deepcopy=False):
            if "note" in trial.user_attrs:
                ended[trial.user_attrs["number"]] = trial.user_attrs["note"]
        return [ended[number] for number in sorted(ended)]

    def front(self) -> list[int]:
        """Numbers of the trials that no other is better than in everything, by the first objective, best first."""
        first_direction = next(iter(self.search.directions.values()))
        sign = -1 if first_direction == "maximize" else 1
        best = sorted(self.study.best_trials, key=lambda trial: sign * trial.values[0])
        return [trial.user_attrs["number"] for trial in best]

    def _sampler(self, number: int) -> Any:
        samplers = self.optuna.samplers
        own_seed = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        if self.search.sampler == "QMCSampler":
            # One sequence for all trials; settings that it cannot place, choices above all, are drawn at random.
            drawn = samplers.RandomSampler(seed=own_seed)
            return samplers.QMCSampler(seed=self.seed, independent_sampler=drawn, warn_independent_sampling=False)
        return getattr(samplers, self.search.sampler)(seed=own_seed)


def distribution(values: Choices | Interval, optuna: ModuleType) -> Any:
    """Optuna's distribution of a setting's values; whole numbers stay whole."""
    if isinstance(values, Choices):
        return optuna.distributions.CategoricalDistribution(values.values)
    given = [values.low, values.high]
    if values.step is not None:
        given.append(values.step)
    if all(isinstance(number, int) for number in given):
        step = 1 if values.step is None else values.step
        return optuna.distributions.IntDistribution(values.low, values.high, log=values.log, step=step)
    return optuna.distributions.FloatDistribution(values.low, values.high, log=values.log, step=values.step)


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
