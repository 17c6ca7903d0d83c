"""From an object to the config that builds it again: the inverse of ``config.build``."""

import dataclasses
from collections.abc import Mapping
from typing import Any


def as_config(value: Any, where: str) -> Any:
    """Plain values, lists and mappings, a ``_target_`` for every object.

    Objects are dataclasses, or of classes that take no arguments; functions and classes become their dotted path.

    Args:
        value: a compressor, say.
        where: what it is called in a message.

    Raises:
        ValueError: it holds something that no file can name: a lambda, a tensor.

    >>> from micronet_cli.functional.schedules import AGP
    >>> as_config({"schedule": AGP(end=0.5)}, "x")["schedule"]["end"]
    0.5
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {key: as_config(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_config(item, f"{where}[{number}]") for number, item in enumerate(value)]
    if isinstance(value, type) or hasattr(value, "__qualname__"):
        return _dotted_path(value, where)
    target = _dotted_path(type(value), where)
    if dataclasses.is_dataclass(value):
        arguments = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
        return {"_target_": target, **as_config(arguments, where)}
    if type(value).__init__ is object.__init__ and type(value).__new__ is object.__new__:
        return {"_target_": target}
    raise ValueError(f"{where}={value!r:.80}: cannot be written into a file; must be a plain value or a dataclass")


def _dotted_path(named: Any, where: str) -> str:
    """The path by which an importer finds a function or class."""
    name = named.__qualname__
    if "<" in name:
        raise ValueError(f"{where}={name}: cannot be written into a file; must be a function or class of a module")
    if named.__module__ == "__main__":
        raise ValueError(f"{where}={name}: must be in a module, not in the script that runs")
    return f"{named.__module__}.{name}"
