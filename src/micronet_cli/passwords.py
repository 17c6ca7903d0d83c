"""Passwords in ``search.storage``: a run's files record what was typed, and must not record those.

So a URL may hold one only where it comes from an environment variable, and is written down with ``***`` in its place.
"""

import re

KEY = "search.storage"
# As SQLAlchemy reads a URL: all up to the @ that follows a colon is the password.
PASSWORD = re.compile(
    r"(://[^:/@\s]*:)(?!\$\{)([^@\s]+)(@)|([?&](?:password|passwd|pwd|sslpassword)=)(?!\$\{)([^&\s]+)"
)
HIDDEN = "***"
WITHOUT_PASSWORD = (
    "must hold no password, which the run's files would keep: leave it to ~/.pgpass or PGPASSWORD, "
    "or give the URL by an environment variable, as '${oc.env:STUDY_URL}'"
)


def has_password(text: str) -> bool:
    """Whether a password stands in a URL; one that an interpolation brings, as ``${oc.env:NAME}``, does not count.

    >>> has_password("postgresql://me:secret@host/db"), has_password("postgresql://me@host:5432/db")
    (True, False)
    """
    return PASSWORD.search(text) is not None


def without_password(text: str) -> str:
    """The text for a file or the terminal.

    >>> without_password("postgresql://me:secret@host/db?sslmode=require")
    'postgresql://me:***@host/db?sslmode=require'
    """
    return PASSWORD.sub(_hidden, text)


def _hidden(found: re.Match[str]) -> str:
    before, after, option = found.group(1, 3, 4)
    if option is not None:
        return f"{option}{HIDDEN}"
    return f"{before}{HIDDEN}{after}"


def passwords(text: str) -> list[str]:
    """Those that stand in a URL."""
    found = []
    for match in PASSWORD.finditer(text):
        found.append(match.group(2) or match.group(5))
    return found
