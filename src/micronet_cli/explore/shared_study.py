"""A study that several processes share, on one machine or on several: each trial is run once."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from micronet_cli.errors import UserError
from micronet_cli.explore.attempts import DROPPED, is_needless, state, was_cut_short
from micronet_cli.explore.search import Search
from micronet_cli.explore.storage import open_storage
from micronet_cli.explore.study import Proposal, Study, load_optuna
from micronet_cli.explore.worker import Silence, Worker
from micronet_cli.passwords import without_password

log = logging.getLogger(__name__)
WORKER = "worker "
REPORTED = "reported "
UNFINISHED = ("RUNNING", "WAITING")


class SharedStudy(Study):
    """As ``Study``, in ``search.storage``; ``search.trials`` counts the trials of all workers.

    A new trial's proposal depends on the seed, its number, and what this worker then knows of the others' trials. A
    trial whose worker has died is taken up again, see ``explore.worker``. Two workers that ask for the last trial, or
    take up the same one, are told apart by Optuna's order of trials: the later one comes to nothing.
    """

    way_out = "give what it has, or another search.storage"

    def __init__(
        self, search: Search, storage: Any, worker: Worker, seed: int, joins: bool, settings: Mapping[str, Any]
    ) -> None:
        """Open or create; trials of ``worker`` that were cut short, and all that failed, are queued again.

        Args:
            search: what to propose.
            storage: its ``search.storage``, open.
            worker: this one.
            seed: of the proposals.
            joins: whether the study may be there already.
            settings: dotted key -> value, of what the trials of all workers have in common.

        Raises:
            UserError: the study is another one, or is there and was not to be joined.
        """
        assert search.storage is not None
        self.worker = worker
        self.settings = dict(settings)
        self._silence = Silence(search.grace_seconds)
        shown = without_password(search.storage)
        try:
            self._begin(search, storage, shown, seed, joins)
        except self.optuna.exceptions.DuplicatedStudyError:
            raise UserError(
                f"search.storage={shown!r}: holds a study already; resume=true joins it, another storage starts afresh"
            ) from None
        self.beat()

    @staticmethod
    def storage(search: Search) -> Any:
        """What ``search.storage`` names, open.

        Raises:
            UserError: it cannot be reached.
        """
        assert search.storage is not None
        return open_storage(search.storage, load_optuna())

    def _check_same_search(self, shown: str) -> None:
        super()._check_same_search(shown)
        known = self.study.user_attrs.get("settings", self.settings)
        self.study.set_user_attr("settings", known)
        for key in known | self.settings:
            theirs = known.get(key)
            own = self.settings.get(key)
            if theirs != own and not _are_files(theirs, own):
                raise UserError(f"{key}={own}: the study in {shown!r} has {theirs}; {self.way_out}")

    def beat(self) -> None:
        """Let the other workers know that this one is alive."""
        self.study.set_user_attr(f"{WORKER}{self.worker.id}", self.worker.record())

    def workers(self) -> dict[str, dict[str, Any]]:
        """Identity -> ``directory host pid beat`` of every worker that there ever was."""
        return self._noted(WORKER)

    def reported(self, number: int) -> Mapping[str, Any]:
        """Figures of the reported split that some worker has found out for a chosen trial."""
        return self._noted(REPORTED).get(str(number), {})

    def report(self, number: int, figures: Mapping[str, Any]) -> None:
        """Keep such figures for the other workers."""
        known = self.reported(number)
        self.study.set_user_attr(f"{REPORTED}{number}", {**known, **figures})

    def _noted(self, kind: str) -> dict[str, dict[str, Any]]:
        found = {}
        for key, value in self.study.user_attrs.items():
            if key.startswith(kind):
                found[key.removeprefix(kind)] = value
        return found

    def _is_asked_for(self, number: int) -> bool:
        return number < self.search.trials

    def _end_what_was_cut_short(self) -> None:
        """Before this worker runs anything, what is called its own is from before it was stopped."""
        for trial in self._trials():
            if trial.state.name == "RUNNING" and trial.user_attrs.get("worker") == self.worker.id:
                self._end(trial)

    def next(self) -> Proposal | None:
        """The next trial; None when there have been enough, or when all that are left are under way."""
        self._end_what_is_silent()
        return super().next()

    def _end_what_is_silent(self) -> None:
        workers = self.workers()
        for number, attempts in self._attempts().items():
            for trial in attempts:
                if trial.state.name != "RUNNING":
                    continue
                # A worker that is killed as it begins a trial has not signed it.
                name = trial.user_attrs.get("worker", f"of {trial.number}")
                record = workers.get(name, {})
                if self._silence.is_silent(name, record.get("beat")) and self._end(trial):
                    log.warning("trial %d is run again: %s is silent", number, described(record))

    def _takes(self, trial: Any, number: int) -> bool:
        trial.set_user_attr("worker", self.worker.id)
        attempts = self._attempts()[number]
        is_new = len(attempts) == 1
        if is_needless(trial, attempts):
            trial.set_user_attr(DROPPED, True)
        elif self._is_asked_for(number) or not is_new:
            return True
        # What is new and one too many is run when more trials are asked for.
        self._end(trial)
        return False

    def give_back(self, proposal: Proposal) -> None:
        """A trial that this worker does not end: another one may run it at once."""
        self._end(proposal.trial)

    def others(self) -> Mapping[int, str]:
        """Number -> who runs it, of the trials that other workers have under way and that this one asks for."""
        workers = self.workers()
        found = {}
        for number, attempts in self._attempts().items():
            is_unfinished = state(attempts) in UNFINISHED or was_cut_short(attempts)
            if is_unfinished and self._is_asked_for(number):
                name = attempts[-1].user_attrs.get("worker", "")
                found[number] = described(workers.get(name, {}))
        return found

    def homes(self) -> Mapping[int, Mapping[str, Any]]:
        """Number -> ``directory``, of the trials that other workers ran."""
        workers = self.workers()
        found = {}
        for number, trial in self._ended().items():
            name = trial.user_attrs["worker"]
            if name != self.worker.id:
                record = workers[name]
                found[number] = {"directory": f"{record['directory']}/{number}"}
        return found

    def home(self, number: int, directory: Path) -> Path | None:
        """The directory of a trial that ended, where it can be seen; ``directory`` is this run's."""
        name = self._ended()[number].user_attrs["worker"]
        if name == self.worker.id:
            return directory / str(number)
        theirs = Path(self.workers()[name]["directory"])
        if not _is_of(theirs, name):
            return None
        return theirs / str(number)


def described(record: Mapping[str, Any]) -> str:
    """A worker for a message."""
    if not record:
        return "a worker that has just begun"
    return f"the worker {record['host']}:{record['directory']} (pid {record['pid']})"


def _is_of(directory: Path, worker: str) -> bool:
    """Whether the directory is that of the worker; another machine may have one of the same name."""
    try:
        return (directory / "worker").read_text().strip() == worker
    except OSError:
        return False


def _are_files(*values: Any) -> bool:
    """Whether all name files, which may lie elsewhere on each machine."""
    return all(isinstance(value, str) and "/" in value for value in values)
