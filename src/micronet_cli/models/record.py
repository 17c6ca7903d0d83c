"""What is known of a live network, as timm writes it down or by its class: enough to build it again."""

from collections.abc import Mapping
from typing import Any

import timm
from torch import nn

from micronet_cli.as_config import as_config
from micronet_cli.errors import near_misses
from micronet_cli.models.model import Model
from micronet_cli.torch_internals import constructor_arguments

PLAIN = (bool, int, float, str, list, tuple)


def config_of(model: nn.Module, name: str | None = None, args: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The ``model`` config of a live network.

    Args:
        model: of timm, or of a class or function of one's own.
        name: timm's name of its architecture, or the dotted path of what made it; None: timm's own record, else its
            class.
        args: arguments of its constructor, beside those in timm's record.

    Raises:
        ValueError: there is no such architecture, or no file can name the class or an argument.
    """
    found = name or _architecture(model) or as_config(type(model), "model")
    arguments = constructor_arguments(model) | dict(args or {})
    arguments.pop("num_classes", None)  # the classes say so
    for key, value in arguments.items():
        if not isinstance(value, PLAIN):
            raise ValueError(f"args.{key}={value!r:.60}: cannot be written into a file; must be a plain value")
    if timm.is_model(found):
        target = f"{Model.__module__}.{Model.__qualname__}"
        return {"_target_": target, "name": found, "args": arguments or None}
    if "." not in found:
        near = near_misses(found, timm.list_models())
        raise ValueError(
            f"name={found}: must be an architecture of timm{near}, or the dotted path of your own class or function"
        )
    return {"_target_": found} | arguments


def _architecture(model: nn.Module) -> str | None:
    """The name by which timm has built a network; None for those that it did not build."""
    record = getattr(model, "pretrained_cfg", None) or {}
    name = record.get("architecture")
    if name and timm.is_model(name):
        return name
    return None


def class_names(model: nn.Module) -> list[str]:
    """A name for every output: those in timm's record, else their numbers."""
    record = getattr(model, "pretrained_cfg", None) or {}
    count = getattr(model, "num_classes", 0)
    names = list(record.get("label_names") or ())
    if len(names) == count:
        return names
    return [str(number) for number in range(count)]
