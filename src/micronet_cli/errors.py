"""The one exception that is the user's to mend."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in what the user asked for: shown without a traceback, exit code 2. One line a problem."""

    exit_code = 2


def near_misses(name: str, known: Iterable[str]) -> str:
    """``; did you mean a, b?`` or nothing."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(near)}?" if near else ""


class JobsFailed(UserError):
    """Some of many jobs failed, while the others went on to their end.

    Attributes:
        heading: how many.
        exit_code: 2 where all of them were a user's mistakes, else 1.
    """

    def __init__(self, heading: str, lines: list[str], exit_code: int) -> None:
        super().__init__("\n".join(lines))
        self.heading, self.exit_code = heading, exit_code


class Interrupted(Exception):
    """SIGINT or SIGTERM came, and what was trained is saved; exit code 130."""
