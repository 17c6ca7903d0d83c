"""The study behind ``stage=search``: it proposes trials and remembers how they ended.

Optuna (Akiba et al., arXiv 1907.10902) does the searching; it is imported when a study is opened.
"""

import importlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from micronet_cli.errors import UserError
from micronet_cli.explore.attempts import by_number, settings, state, was_cut_short
from micronet_cli.explore.proposals import NumberedSampler, distribution, sampler
from micronet_cli.explore.search import Plain, Search


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
    """Trials in a storage: what was told is kept, whatever happens to the process.

    Proposals depend on the seed, the number of the trial and the trials told so far, so that a study that is resumed
    proposes what an uninterrupted one would have.
    """

    way_out = "leave resume out to start afresh"

    def __init__(self, search: Search, path: Path, seed: int) -> None:
        """Open or create; trials that were cut short or failed are queued again.

        Args:
            search: what to propose.
            path: an SQLite file.
            seed: of the proposals.

        Raises:
            UserError: Optuna is not installed, or the file's study is another one.
        """
        self._begin(search, f"sqlite:///{path}", str(path), seed)

    def _begin(self, search: Search, storage: Any, shown: str, seed: int, joins: bool = True) -> None:
        self.search = search
        self.seed = seed
        self.optuna = load_optuna()
        self.space: dict[str, Any] = {}
        for key, values in search.dimensions.items():
            self.space[key] = distribution(values, self.optuna)
        self.study = self.optuna.create_study(
            storage=storage,
            study_name="search",
            sampler=NumberedSampler(self._sampler, self._number_of),
            directions=list(search.directions.values()),
            load_if_exists=joins,
        )
        self._check_same_search(shown)
        self._end_what_was_cut_short()
        for number, attempts in self._attempts().items():
            if state(attempts) == "FAIL" and self._is_asked_for(number):
                self._queue(number, attempts)

    def _sampler(self, number: int) -> Any:
        return sampler(self.search.sampler, self.seed, number, self.optuna)

    def _asked(self) -> dict[str, Any]:
        """What makes it the same search."""
        space = {}
        for key, values in self.space.items():
            space[key] = self.optuna.distributions.distribution_to_json(values)
        return {
            "objectives": self.search.directions,
            "space": space,
            "stage": self.search.stage,
            "split": self.search.split,
        }

    def _check_same_search(self, shown: str) -> None:
        asked = self._asked()
        known = self.study.user_attrs.get("search", asked)
        # Studies of version 0.1.0 name no split: they were told figures of test.
        known = {"split": "test"} | known
        self.study.set_user_attr("search", known)
        for key, value in asked.items():
            if known[key] != value:
                # A whole space would not fit into a line.
                given, theirs = (f"={value}", known[key]) if isinstance(value, str) else ("", "another")
                raise UserError(f"search.{key}{given}: the study in {shown!r} has {theirs}; {self.way_out}")

    def _trials(self) -> Sequence[Any]:
        """Optuna's, as they are now."""
        found: Sequence[Any] = self.study.get_trials(deepcopy=False)
        return found

    def _attempts(self) -> dict[int, list[Any]]:
        """Number -> its attempts."""
        return by_number(self._trials())

    def _number_of(self, trial: Any) -> int:
        """The number of a trial of Optuna's."""
        for number, attempts in self._attempts().items():
            if any(other.number == trial.number for other in attempts):
                return number
        raise AssertionError(f"trial {trial.number} is not in its study")

    def _end_what_was_cut_short(self) -> None:
        """Whatever runs, as the study says, was another process's that is no more."""
        for trial in self._trials():
            if trial.state.name == "RUNNING":
                self._end(trial)

    def _is_asked_for(self, number: int) -> bool:
        """Whether a trial that failed or was cut short is to be run again: any."""
        return True

    def _queue(self, number: int, attempts: Sequence[Any]) -> None:
        known = dict(settings(attempts))
        self.study.enqueue_trial(known, user_attrs={"number": number})

    def next(self) -> Proposal | None:
        """The next trial; None when there have been enough, or when all that are left are under way."""
        for number, attempts in self._attempts().items():
            if was_cut_short(attempts) and self._is_asked_for(number):
                self._queue(number, attempts)
        # A process that slept as it began a trial may find it taken for a dead one's, and ended.
        taken_away = self.optuna.exceptions.UpdateFinishedTrialError
        while not self._is_enough():
            with suppress(taken_away):
                trial = self.study.ask(self.space)
                number = self._number_of(trial)
                trial.set_user_attr("number", number)
                if self._takes(trial, number):
                    return Proposal(number, dict(trial.params), trial)
        return None

    def _is_enough(self) -> bool:
        attempts = self._attempts()
        states = {state(each) for each in attempts.values()}
        return len(attempts) >= self.search.trials and "WAITING" not in states

    def _takes(self, trial: Any, number: int) -> bool:
        """Whether to run a trial that Optuna has begun: no other process does. One that is not run has been ended."""
        return True

    def tell(self, proposal: Proposal, values: list[float] | None, note: dict[str, Any]) -> bool:
        """A trial's objectives, None where it failed; ``note`` is kept with it. False: another one has ended it."""
        trial = proposal.trial
        try:
            trial.set_user_attr("note", note)
        except self.optuna.exceptions.UpdateFinishedTrialError:
            return False
        if values is None:
            return self._end(trial)
        return self._tell(trial, values)

    def _end(self, trial: Any) -> bool:
        """Let a trial of Optuna's have no objectives; whether it had not ended before."""
        failed = self.optuna.trial.TrialState.FAIL
        return self._tell(trial, None, failed)

    def _tell(self, trial: Any, values: list[float] | None, ended: Any = None) -> bool:
        try:
            self.study.tell(trial.number, values, ended)
        except (ValueError, self.optuna.exceptions.UpdateFinishedTrialError):
            if self._trials()[trial.number].state.is_finished():
                return False
            raise
        return True

    def give_back(self, proposal: Proposal) -> None:
        """A trial that this process does not end: it stays open, and is run again when the study is opened again."""

    def others(self) -> Mapping[int, str]:
        """Number -> who runs it, of the trials that other processes have under way: none."""
        return {}

    def homes(self) -> Mapping[int, Mapping[str, Any]]:
        """Number -> ``directory``, of the trials whose directory is not the one of their number in this run's."""
        return {}

    def home(self, number: int, directory: Path) -> Path | None:
        """The directory of a trial that ended, where it can be seen; ``directory`` is this run's."""
        return directory / str(number)

    def reported(self, number: int) -> Mapping[str, Any]:
        """Figures of the reported split that another process has found out for a chosen trial: none."""
        return {}

    def report(self, number: int, figures: Mapping[str, Any]) -> None:
        """Keep such figures for other processes: there are none."""

    def ended(self) -> dict[int, dict[str, Any]]:
        """Number -> the note of the latest attempt that ended with one, by number."""
        return {number: trial.user_attrs["note"] for number, trial in self._ended().items()}

    def _ended(self) -> dict[int, Any]:
        found = {}
        for number, attempts in self._attempts().items():
            for trial in attempts:
                note = trial.user_attrs.get("note")
                if note is None:
                    continue
                # A process that dies between the note and the objectives leaves a trial that is run again.
                if note.get("status") != "completed" or trial.state.name == "COMPLETE":
                    found[number] = trial
        return dict(sorted(found.items()))

    def front(self) -> list[int]:
        """Numbers of the trials that no other is better than in everything, by the first objective, best first."""
        directions = list(self.search.directions.values())
        best = sorted(
            self.study.best_trials,
            key=lambda trial: trial.values[0],
            reverse=directions[0] == "maximize",
        )
        return [trial.user_attrs["number"] for trial in best]


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
