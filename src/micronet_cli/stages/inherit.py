"""``model=auto`` and ``data=auto``: what ``init_from`` was trained with, or the defaults."""

from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from micronet_cli import checkpoint
from micronet_cli.config import named_packages, refused_names, to_plain
from micronet_cli.dotted_path import checked_trust
from micronet_cli.errors import UserError
from micronet_cli.paths import CONF
from micronet_cli.stages.node import stage_module

DEFAULT_MODEL = to_plain(OmegaConf.load(CONF / "model" / "timm.yaml")) | {"name": "resnet20"}


def inherited(config: DictConfig) -> DictConfig:
    """A copy in which ``model=auto`` and ``data=auto`` are what ``init_from`` was trained with, or the defaults.

    Keys given beside ``auto`` refine what is inherited. The default data set is digits; a stage that needs no data has
    none then, for digits would decide how many classes its network has.

    Raises:
        UserError: ``init_from`` is no checkpoint, or the model has weights of its own as well.
    """
    config = DictConfig(OmegaConf.to_container(config, resolve=True))
    OmegaConf.set_struct(config, False)
    trust = trusted(config)
    config.trust = list(trust)
    start = _start(config, trust)
    for group, trained_with in start.items():
        given = config[group]
        if "_target_" not in given:
            _check_named(trained_with, group, config.init_from, trust)
            config[group] = OmegaConf.merge(trained_with, given)
    for key in ("weights", "pretrained"):
        source = config.model.get(key)
        if source and config.init_from:
            raise UserError(f"model.{key}={source}: init_from brings its weights; take one of them")
    return config


def trusted(config: DictConfig) -> tuple[str, ...]:
    """The packages that this run's files may name beside micronet: ``trust``, and those that the user's config names.

    Raises:
        UserError: ``trust`` is no list, or one of its packages cannot be imported.
    """
    given = checked_trust(to_plain(config.get("trust")))
    return tuple(dict.fromkeys([*given, *named_packages(config)]))


def _check_named(node: Any, group: str, init_from: Any, trust: Sequence[str]) -> None:
    """Raises UserError where a file's config names what is not trusted."""
    if refused := refused_names(node, group, trust):
        raise UserError("\n".join(f"init_from={init_from!r}: {reason}" for reason in refused))


def _start(config: DictConfig, trust: Sequence[str]) -> dict[str, Any]:
    """The groups ``model`` and ``data`` of ``init_from``, or the defaults."""
    init_from = config.init_from
    if not init_from:
        data = "digits" if _needs_data(config) else "no_images"
        return {"model": DEFAULT_MODEL, "data": OmegaConf.load(CONF / "data" / f"{data}.yaml")}
    if not isinstance(init_from, str):
        way_out = "" if OmegaConf.is_config(init_from) else f", as ./{init_from}"
        raise UserError(f"init_from={init_from}: must be a path{way_out}")
    if init_from.endswith(".onnx") and _takes_onnx(config):
        return {"model": {}, "data": OmegaConf.load(CONF / "data" / "no_images.yaml")}
    start = checkpoint.beginning(init_from, trust=trust)
    # A network of the hub has no data of its own, and digits would have other classes.
    start.setdefault("data", OmegaConf.load(CONF / "data" / "no_images.yaml"))
    return start


def _takes_onnx(config: DictConfig) -> bool:
    """Whether the stage takes an ONNX file, which brings no model; one that does has ``TAKES_ONNX = True``."""
    return "stage" in config and getattr(stage_module(config), "TAKES_ONNX", False)


def _needs_data(config: DictConfig) -> bool:
    """Whether the stage is about images; one that is not has ``NEEDS_DATA = False``."""
    if "stage" not in config:
        return True
    return getattr(stage_module(config), "NEEDS_DATA", True)
