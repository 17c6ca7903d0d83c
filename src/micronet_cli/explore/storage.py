"""Where a shared study is kept: a journal on a directory that machines share, or a database."""

from collections.abc import Iterator
from contextlib import contextmanager
from json import JSONDecodeError
from pathlib import Path
from types import ModuleType
from typing import Any

from micronet_cli.errors import UserError
from micronet_cli.passwords import HIDDEN, KEY, passwords, without_password

JOURNAL = ".journal"
OUTSIDE = ("optuna.", "sqlalchemy.", "psycopg", "MySQLdb", "pymysql")


def is_url(storage: str) -> bool:
    """Whether it names a database, not a file."""
    return "://" in storage


def problem(storage: str) -> str | None:
    """What is wrong with the text, before anything is opened; None where nothing is."""
    if is_url(storage):
        backend, _, rest = storage.partition("://")
        is_sqlite = backend.partition("+")[0] == "sqlite"
        if is_sqlite and rest.strip("/") in ("", ":memory:"):
            return "must name a file, as sqlite:///study.db; a database in memory has one process"
        return None
    if storage.endswith(JOURNAL):
        return None
    return f"must be null, a file FILE{JOURNAL} or a database's URL, as postgresql://USER@HOST/NAME"


def open_storage(storage: str, optuna: ModuleType) -> Any:
    """Optuna's storage.

    A relative file is one of the working directory. The lock of a journal is a file made with O_EXCL: it holds on NFS
    from version 3 on, and whatever path each machine sees the file at. Optuna's other lock, a symbolic link, is for
    NFS 2; it holds the path of the file, so machines that mount the directory at different places would wait for a
    killed worker's lock for ever. Either is taken away from a process that holds it for 30 seconds, as a killed one.

    Raises:
        UserError: there is no such directory, driver, server or database, or it may not be written.
    """
    with answered(storage, opening=True):
        if is_url(storage):
            return _database(storage, optuna)
        path = Path(storage).expanduser().absolute()
        if not path.parent.is_dir():
            missing = str(path.parent)
            raise UserError(f"{KEY}={storage!r}: no directory {missing!r}; make it, where all workers see it")
        journal = optuna.storages.journal
        lock = journal.JournalFileOpenLock(str(path))
        backend = journal.JournalFileBackend(str(path), lock_obj=lock)
        return journal.JournalStorage(backend)


def _database(url: str, optuna: ModuleType) -> Any:
    options: dict[str, Any] = {}
    if url.startswith("sqlite"):
        # Workers wait for each other; SQLite's 5 seconds are short on a busy disk.
        options["connect_args"] = {"timeout": 60}
    else:
        # A server may drop a connection that slept during a trial.
        options["pool_pre_ping"] = True
    return optuna.storages.RDBStorage(url, engine_kwargs=options)


@contextmanager
def answered(storage: str, opening: bool = False) -> Iterator[None]:
    """What goes wrong with the storage inside the block becomes one line that names it.

    Args:
        storage: as it was given.
        opening: whether a file of another kind may be met, which Optuna stumbles over in any way.

    Raises:
        UserError: it did.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        is_of_storage = isinstance(error, OSError | JSONDecodeError) or type(error).__module__.startswith(OUTSIDE)
        if not is_of_storage and not opening:
            raise
        raise UserError(f"{KEY}={without_password(storage)!r}: {_reason(error, storage)}") from None


def _reason(error: BaseException, storage: str) -> str:
    """On one line, without the URL's password: the innermost cause, which says what the driver or the disk said."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, ModuleNotFoundError):
        return f"the driver {error.name} is not installed; pip install {_package(error.name)}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[:2]) or type(error).__name__
    if not is_url(storage):
        text = f"no journal of a study, or a damaged one ({text})"
    for secret in passwords(storage):
        text = text.replace(secret, HIDDEN)
    return without_password(text)


def _package(module: str | None) -> str:
    """What installs a driver."""
    packages = {"psycopg2": "psycopg2-binary", "psycopg": "'psycopg[binary]'", "MySQLdb": "mysqlclient"}
    return packages.get(module or "", module or "it")
