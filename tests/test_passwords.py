"""Passwords in URLs are found as SQLAlchemy finds them, and hidden."""

import pytest

from micronet_cli.passwords import has_password, passwords, without_password

HIDDEN = {
    "postgresql://me:a/b:c@host:5432/db": "postgresql://me:***@host:5432/db",
    "mysql+pymysql://:secret@host/db": "mysql+pymysql://:***@host/db",
    "postgresql://host/db?user=me&password=secret&sslmode=require": (
        "postgresql://host/db?user=me&password=***&sslmode=require"
    ),
}
OPEN = (
    "postgresql://me@host:5432/db", "postgresql:///db", "sqlite:////data/a:b/study.db", "${oc.env:STUDY_URL}",
    "postgresql://me:${oc.env:PASSWORD}@host/db", "shared/study.journal",
)  # fmt: skip


@pytest.mark.parametrize("url", HIDDEN)
def test_password_is_hidden(url):
    assert has_password(url)
    assert without_password(url) == HIDDEN[url]


@pytest.mark.parametrize("url", OPEN)
def test_what_has_no_password_stays(url):
    assert not has_password(url)
    assert without_password(url) == url


def test_all_passwords_are_found():
    assert passwords("a://b:one@c and d://e?pwd=two&x=3") == ["one", "two"]
