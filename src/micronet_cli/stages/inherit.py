"""``model=auto`` and ``data=auto``: what ``init_from`` was trained with, or the defaults."""

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
    defaults = {"model": DEFAULT_MODEL, "data": OmegaConf.load(CONF / "data" / "digits.yaml")}
    if config.init_from:
        if not isinstance(config.init_from, str):
            example = "" if OmegaConf.is_config(config.init_from) else f", as ./{config.init_from}"
            raise UserError(f"init_from={config.init_from}: must be a path{example}")
        header = checkpoint.read_header(checkpoint.resolve(config.init_from))
        defaults = {key: header[key] for key in defaults}
    for group, default in defaults.items():
        if "_target_" not in config[group]:
            config[group] = OmegaConf.merge(default, config[group])
    for key in ("weights", "pretrained"):
        if config.init_from and config.model.get(key):
            raise UserError(f"model.{key}={config.model[key]}: init_from brings its weights; take one of them")
    return config
