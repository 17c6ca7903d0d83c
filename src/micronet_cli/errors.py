"""The exceptions that the command line answers without a traceback."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in what the user asked for: shown without a traceback, exit code 2. One line a problem."""

    exit_code = 2


def near_misses(name: str, known: Iterable[str]) -> str:
    """``; did you mean a or b?`` with up to three known names like it; nothing where none is alike."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    if not near:
        return ""
    return f"; did you mean {' or '.join(near)}?"


class JobsFailed(UserError):
    """Some of many jobs failed; the others went on to their end.

    Attributes:
        heading: the line above the list of them.
        exit_code: 2 where all of them were a user's mistakes, else 1.
    """

    def __init__(self, heading: str, lines: list[str], exit_code: int) -> None:
        super().__init__("\n".join(lines))
        self.heading = heading
        self.exit_code = exit_code


class Interrupted(Exception):
    """SIGINT or SIGTERM came, and what was trained is saved; exit code 130."""
