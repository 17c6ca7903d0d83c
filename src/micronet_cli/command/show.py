"""``--cfg job``: the config as Hydra composes it, and in place of ``auto`` what it stands for."""

import sys
from argparse import Namespace

from omegaconf import DictConfig, OmegaConf, flag_override

from micronet_cli.errors import UserError
from micronet_cli.paths import CONF

AUTO = ("model", "data")


def show(asked: Namespace) -> None:
    """Print the config that the command line, as parsed, composes; with a package only what is below it.

    Raises:
        UserError: nothing is there, or ``init_from`` is no network.
    """
    config = _composed(asked)
    _fill_auto(config)
    package = asked.package
    if package in (None, "_global_"):
        node, header = config, ""
    else:
        node, header = OmegaConf.select(config, package), f"# @package {package}\n"
    if node is None:
        raise UserError(f"--package {package}: there is nothing in the config")
    if not OmegaConf.is_config(node):
        print(node)
        return
    if asked.resolve:
        OmegaConf.resolve(node)
    sys.stdout.write(header + OmegaConf.to_yaml(node))


def _composed(asked: Namespace) -> DictConfig:
    """The config without Hydra's own part, which interpolations may ask for."""
    from hydra import compose, initialize_config_dir
    from hydra.core.hydra_config import HydraConfig

    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(asked.config_name or "config", asked.overrides, return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    with flag_override(config, ["struct", "readonly"], [False, False]):
        del config["hydra"]
    return config


def _fill_auto(config: DictConfig) -> None:
    """Put what a run would take in the place of ``model=auto`` and ``data=auto``."""
    left_open = [group for group in AUTO if "_target_" not in config[group]]
    if not left_open:
        return
    try:
        from micronet_cli.stages.inherit import inherited
    except ImportError:  # without torch no file is read
        return
    whole = inherited(config)
    for group in left_open:
        config[group] = whole[group]
