"""A password in ``search.storage`` is refused before Hydra writes it down."""

import pytest
from omegaconf import OmegaConf

from micronet_cli.command.passwords import hide_configured, refuse_typed
from micronet_cli.errors import UserError

URL = "postgresql://me:s3cret@host/db"


@pytest.mark.parametrize("typed", [f"search.storage={URL}", f"++search.storage='{URL}'", f"+search={{storage:{URL}}}"])
def test_a_typed_password_is_refused_and_not_repeated(typed):
    with pytest.raises(UserError, match=r"search\.storage=.*: must hold no password") as caught:
        refuse_typed(["stage=search", typed])
    assert "s3cret" not in str(caught.value)


def test_what_holds_none_passes():
    refuse_typed(
        ["search.storage=${oc.env:URL}", "search.storage=postgresql://me@host:1/db", "~search.space", "name=a:b@c"]
    )


def test_a_configured_password_is_hidden_and_an_interpolation_stays_open():
    config = OmegaConf.create({"search": {"storage": URL}})
    OmegaConf.set_readonly(config, True)
    hide_configured(config)
    assert config.search.storage == "postgresql://me:***@host/db"
    config = OmegaConf.create({"search": {"storage": "${oc.env:NO_SUCH_VARIABLE}"}})
    hide_configured(config)
    assert OmegaConf.to_container(config) == {"search": {"storage": "${oc.env:NO_SUCH_VARIABLE}"}}
    for other in ({}, {"search": None}, {"search": {}}):
        hide_configured(OmegaConf.create(other))


def test_a_typed_password_reaches_no_file(mistake, tmp_path):
    said = mistake("stage=search", f"search.storage={URL}", directory=tmp_path / "run")
    assert "must hold no password" in said
    assert not (tmp_path / "run").exists()


def test_a_config_s_password_reaches_no_file(mistake, tmp_path):
    groups = tmp_path / "conf" / "search"
    groups.mkdir(parents=True)
    (groups / "mine.yaml").write_text(f"defaults: [default]\nstorage: {URL}\n")
    run = tmp_path / "run"
    # What was there keeps Hydra's files of a command that is refused.
    run.mkdir()
    (run / "config.yaml").write_text("{}\n")
    said = mistake("stage=search", "data=digits", "search=mine", "--config-dir", str(tmp_path / "conf"), directory=run)
    assert "s3cret" not in said
    assert "must hold no password" in said
    for path in run.rglob("*"):
        if path.is_file():
            assert b"s3cret" not in path.read_bytes()
