"""What timm writes down about a network that it builds: enough to build it again."""

from collections.abc import Mapping
from typing import Any

import timm
from torch import nn

from micronet_cli.models.model import Model
from micronet_cli.torch_internals import constructor_arguments

PLAIN = (bool, int, float, str, list, tuple)


def config_of(model: nn.Module, name: str | None = None, args: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The ``model`` config of a live network.

    Args:
        model: built by ``timm.create_model``, or of an architecture that is registered with timm.
        name: of the architecture; None: timm's own record.
        args: further arguments of its constructor, beside those in timm's record.

    Raises:
        ValueError: timm has not built it and knows no such name, or an argument is no plain value.
    """
    record = getattr(model, "pretrained_cfg", None) or {}
    found = name or record.get("architecture")
    if not found or not timm.is_model(found):
        raise ValueError(
            f"name={found}: must be the name of an architecture of timm; a network of your own has one with "
            "timm.models.register_model"
        )
    arguments = constructor_arguments(model) | dict(args or {})
    arguments.pop("num_classes", None)  # the classes say so
    for key, value in arguments.items():
        if not isinstance(value, PLAIN):
            raise ValueError(f"args.{key}={value!r:.60}: cannot be written into a file; must be a plain value")
    target = f"{Model.__module__}.{Model.__qualname__}"
    return {"_target_": target, "name": found, "args": arguments or None}


def class_names(model: nn.Module) -> list[str]:
    """A name for every output: those in timm's record, else their numbers."""
    record = getattr(model, "pretrained_cfg", None) or {}
    count = getattr(model, "num_classes", 0)
    names = list(record.get("label_names") or ())
    if len(names) == count:
        return names
    return [str(number) for number in range(count)]
