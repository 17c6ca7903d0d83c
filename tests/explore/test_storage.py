"""Storages: what may be given, what is answered where it cannot be reached."""

import pytest

from micronet_cli.errors import UserError
from micronet_cli.explore.storage import answered, open_storage, problem

optuna = pytest.importorskip("optuna")


def test_what_names_no_storage_is_refused():
    assert problem("a/study.journal") is None
    assert problem("postgresql://host/db") is None
    assert "must be null, a file FILE.journal" in problem("study.db")
    assert "must name a file" in problem("sqlite://")
    assert "must name a file" in problem("sqlite:///:memory:")


MISSING = {
    "directory": ("nowhere/study.journal", "no directory .*nowhere'; make it"),
    "database": ("sqlite:///nowhere/study.db", "unable to open database file"),
    "kind": ("nosuch://host/db", "Can't load plugin: sqlalchemy.dialects:nosuch"),
    "driver": ("postgresql+nosuch://me:secret@host/db", "nosuch"),
    "port": ("postgresql://me:secret@host:port/db", "port"),
}


@pytest.mark.parametrize(("storage", "reason"), MISSING.values(), ids=MISSING)
def test_what_cannot_be_opened_is_answered_in_a_line(tmp_path, monkeypatch, storage, reason):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=rf"search\.storage='.*': .*{reason}") as caught:
        open_storage(storage, optuna)
    assert len(str(caught.value).splitlines()) == 1
    assert "secret" not in str(caught.value)


def test_a_missing_driver_is_named_with_what_installs_it(monkeypatch):
    def connect(*_, **__):
        raise ImportError("no DB access module") from ModuleNotFoundError("No module", name="MySQLdb")

    monkeypatch.setattr(optuna.storages, "RDBStorage", connect)
    with pytest.raises(UserError, match="the driver MySQLdb is not installed; pip install mysqlclient"):
        open_storage("mysql://host/db", optuna)


def test_a_driver_s_words_do_not_give_the_password_away():
    url = "postgresql://me:secret@host/db"
    with pytest.raises(UserError) as caught, answered(url, opening=True):
        raise ValueError(f"no route to {url}\nfor secret")
    assert (
        str(caught.value)
        == "search.storage='postgresql://me:***@host/db': no route to postgresql://me:***@host/db for ***"
    )


def test_other_mistakes_keep_their_traceback():
    with pytest.raises(KeyError), answered("a.journal"):
        raise KeyError("a bug")


def test_relative_journal_is_one_of_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    storage = open_storage("study.journal", optuna)
    optuna.create_study(storage=storage, study_name="search")
    assert (tmp_path / "study.journal").stat().st_size
    assert not (tmp_path / "study.journal.lock").exists()
