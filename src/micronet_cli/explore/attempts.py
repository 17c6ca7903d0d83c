"""What a study's trials are about: a numbered trial may take several attempts, each of them a trial of Optuna's.

Optuna numbers its trials in the order in which they were made, in one order for all workers. All that is decided here
depends on that order alone, so workers that share a study decide alike without a lock.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

Attempts = Sequence[Any]  # Optuna's trials, the earliest first
# The first of these that an attempt is in is the state of the whole.
STATES = ("COMPLETE", "RUNNING", "WAITING", "FAIL")
LIVING = STATES[:3]
DROPPED = "dropped"


def by_number(trials: Sequence[Any]) -> dict[int, list[Any]]:
    """Number -> its attempts, without those that came to nothing because another one had begun.

    A new trial has the next free number, also while its own worker has not yet written it down. One that was queued
    again carries its number from the start.
    """
    found: dict[int, list[Any]] = defaultdict(list)
    for trial in sorted(trials, key=lambda trial: trial.number):
        next_number = max(found, default=-1) + 1
        number = trial.user_attrs.get("number", next_number)
        attempts = found[number]
        if DROPPED not in trial.user_attrs:
            attempts.append(trial)
    return dict(found)


def state(attempts: Attempts) -> str:
    """``COMPLETE``, ``RUNNING``, ``WAITING`` or ``FAIL``."""
    states = {trial.state.name for trial in attempts}
    for name in STATES:
        if name in states:
            return name
    return "FAIL"


def was_cut_short(attempts: Attempts) -> bool:
    """Whether the last attempt ended without its worker saying that it failed."""
    if state(attempts) != "FAIL":
        return False
    if not attempts:
        return True
    note = attempts[-1].user_attrs.get("note")
    return note is None or note.get("status") == "completed"


def is_needless(trial: Any, attempts: Attempts) -> bool:
    """Whether an earlier attempt is done, or under way, or will be: two workers have queued it at once."""
    earlier = [other for other in attempts if other.number < trial.number]
    return any(other.state.name in LIVING for other in earlier)


def settings(attempts: Attempts) -> Mapping[str, Any]:
    """Setting -> value, as far as the last attempt came to have them."""
    for trial in reversed(attempts):
        chosen = trial.params or trial.system_attrs.get("fixed_params")
        if chosen:
            return chosen
    return {}
