"""``model=auto`` and ``data=auto``: what ``init_from`` was trained with, or the defaults."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from micronet_cli import checkpoint
from micronet_cli.errors import UserError
from micronet_cli.paths import CONF

DEFAULT_MODEL = {"_target_": "micronet_cli.models.model.Model", "name": "resnet20"}


def inherited(config: DictConfig) -> DictConfig:
    """A copy in which ``model=auto`` and ``data=auto`` are what ``init_from`` was trained with, or the defaults.

    Keys given beside ``auto`` refine what is inherited.

    Raises:
        UserError: ``init_from`` is no checkpoint, or the model has weights of its own as well.
    """
    config = DictConfig(OmegaConf.to_container(config, resolve=True))
    OmegaConf.set_struct(config, False)
    start = _start(config.init_from)
    for group, trained_with in start.items():
        given = config[group]
        if "_target_" not in given:
            config[group] = OmegaConf.merge(trained_with, given)
    for key in ("weights", "pretrained"):
        source = config.model.get(key)
        if source and config.init_from:
            raise UserError(f"model.{key}={source}: init_from brings its weights; take one of them")
    return config


def _start(init_from: Any) -> dict[str, Any]:
    """The groups ``model`` and ``data`` of ``init_from``, or the defaults."""
    if not init_from:
        digits = CONF / "data" / "digits.yaml"
        return {"model": DEFAULT_MODEL, "data": OmegaConf.load(digits)}
    if not isinstance(init_from, str):
        way_out = "" if OmegaConf.is_config(init_from) else f", as ./{init_from}"
        raise UserError(f"init_from={init_from}: must be a path{way_out}")
    # A network of the hub has no data of its own, and digits would have other classes.
    return {"data": {}} | checkpoint.beginning(init_from)
