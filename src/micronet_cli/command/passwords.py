"""A password in ``search.storage`` is in no file: Hydra would keep what was typed, and the config, in ``.hydra``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from micronet_cli.errors import UserError
from micronet_cli.passwords import KEY, WITHOUT_PASSWORD, has_password, without_password

if TYPE_CHECKING:
    from omegaconf import DictConfig


def refuse_typed(overrides: Iterable[str]) -> None:
    """Before Hydra, which writes down what was typed.

    Raises:
        UserError: a password was typed.
    """
    for override in overrides:
        key, _, value = override.partition("=")
        group = key.lstrip("+~").partition(".")[0]
        if group == "search" and has_password(value):
            shown = without_password(value).strip("'\"")
            raise UserError(f"{KEY}={shown!r}: {WITHOUT_PASSWORD}")


def hide_configured(config: DictConfig) -> None:
    """Hide the password that a config file holds, before Hydra writes it down; one of an interpolation stays open."""
    from omegaconf import DictConfig, OmegaConf, flag_override  # half of what --help takes; it needs no config

    search = OmegaConf.select(config, "search", default=None)
    if not isinstance(search, DictConfig):
        return
    plain = OmegaConf.to_container(search, resolve=False)
    assert isinstance(plain, dict)
    storage = plain.get("storage")
    if isinstance(storage, str) and has_password(storage):
        with flag_override(config, ["struct", "readonly"], [False, False]):
            config.search.storage = without_password(storage)
