"""From a composed config to objects: bound to signatures, all mistakes at once, by config path.

The one place that turns a ``_target_`` into an object. Constructors are cheap and validate their values; whatever is
heavy (a network, a data set) is built later, by a method. A config node without ``_target_`` is bound to the type that
the signature above it names, so the annotations are the schema.
"""

import importlib
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from micronet_cli.errors import UserError, near_misses
from micronet_cli.overrides import group_names
from micronet_cli.renamed import RENAMED

MISSING = "???"
ALLOWED_TARGETS = ("micronet_cli.",)
NOT_BUILT = ("experiment", "hydra", "stage")  # directories of options that are no part of a stage
SETTINGS: dict[str, Any] = {
    "name": str,
    "seed": int,
    "resume": bool,
    "debug": bool,
    "init_from": str | None,
    "runs": str | None,
}


def to_plain(cfg: Any) -> Any:
    """A resolved copy of a config node made of dicts, lists and scalars."""
    return OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else cfg


def locate(path: str, where: str) -> Any:
    """The function or class behind a dotted path of an allowed package; one of an earlier version is followed.

    Raises:
        UserError: the path is outside ``ALLOWED_TARGETS`` or names nothing.
    """
    if not path.startswith(ALLOWED_TARGETS):
        raise UserError(f"{where}: {path!r} is not allowed; it has to begin with {' or '.join(ALLOWED_TARGETS)}")
    path = RENAMED.get(path, path)
    module, _, name = path.rpartition(".")
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"{where}: {path!r} cannot be imported ({error})") from None
    if not hasattr(found, name):
        raise UserError(f"{where}: {path!r} cannot be imported; {module} has no {name}{near_misses(name, dir(found))}")
    return getattr(found, name)


def build(node: Any, where: str, kind: Any = Any) -> Any:
    """The object that one config node describes, by its ``_target_`` or ``kind``; None for null or an empty node.

    Raises:
        UserError: every mistake in the node, a line each.
    """
    problems: list[str] = []
    built = _build(to_plain(node), kind, where, problems) if node or kind is not Any else None
    if problems:
        raise UserError("\n".join(problems))
    return built


def check_config(cfg: DictConfig) -> dict[str, Any]:
    """Build every group of ``cfg``: group name -> object (None where the group is ``none``).

    Raises:
        UserError: every mistake in the whole config, a line each.
    """
    plain = to_plain(cfg)
    groups = [name for name in group_names() if name not in NOT_BUILT]
    known = {*groups, *SETTINGS, "stage"}
    problems = []
    for key in plain:
        if key not in known:
            problems.append(f"{key}: unknown key{near_misses(key, known)}")
    for key, kind in SETTINGS.items():
        if key in plain:
            _build(plain[key], kind, key, problems)
    if isinstance(seed := plain.get("seed"), int) and seed < 0:
        problems.append(f"seed={seed}: must be at least 0")
    built = {group: _build_group(plain.get(group), group, problems) for group in groups}
    if problems:
        raise UserError("\n".join(problems))
    return built


def _build_group(node: Any, group: str, problems: list[str]) -> Any:
    if not node:
        return None
    if "_target_" not in node:
        problems.append(f"{group}.{next(iter(node))}: {group}=none takes no keys; choose an option, {group}=<name>")
        return None
    return _build(node, Any, group, problems)


def _build(value: Any, kind: Any, where: str, problems: list[str]) -> Any:
    """``value`` as an instance of the annotation ``kind``; what is wrong goes to ``problems``."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _build_union(value, arguments, where, problems)
    if isinstance(value, Mapping):
        if "_target_" in value or (inspect.isclass(kind) and hasattr(kind, "__dataclass_fields__")):
            return _build_call(value, kind, where, problems)
        item = arguments[1] if len(arguments) == 2 and origin is not Callable else Any
        if kind is Any or origin in (dict, Mapping):
            return {key: _build(v, item, f"{where}.{key}", problems) for key, v in value.items()}
    if isinstance(value, str) and (kind is Callable or origin is Callable):
        return _attempt(lambda: locate(value, where), where, problems)
    if isinstance(value, list) and (kind is list or origin in (list, tuple)):
        item = arguments[0] if arguments else Any
        return [_build(v, item, f"{where}[{i}]", problems) for i, v in enumerate(value)]
    if not _fits(value, kind):
        problems.append(f"{where}={value!r}: must be {_describe(kind)}")
    return value


def _build_union(value: Any, kinds: tuple, where: str, problems: list[str]) -> Any:
    if value is None and type(None) in kinds:
        return None
    first: list[str] = []
    for kind in kinds:
        attempt: list[str] = []
        built = _build(value, kind, where, attempt)
        if not attempt:
            return built
        # A mapping's or a dotted path's own mistakes say more than "must be a number or null".
        dotted = isinstance(value, str) and Callable in (kind, typing.get_origin(kind))
        if dotted or (isinstance(value, Mapping) and kind is not type(None)):
            first = first or attempt
    problems.extend(first or [f"{where}={value!r}: must be {' or '.join(_describe(kind) for kind in kinds)}"])
    return value


def _build_call(value: Mapping, kind: Any, where: str, problems: list[str]) -> Any:
    given = {key: v for key, v in value.items() if v != MISSING}
    path = given.pop("_target_", None)
    target = kind if path is None else _attempt(lambda: locate(path, where), where, problems)
    if target is None:
        return None
    parameters = inspect.signature(target).parameters
    hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    for key in given.keys() - parameters.keys():
        problems.append(f"{where}.{key}: unknown key{near_misses(key, parameters)}")
    before = len(problems)
    arguments = {
        key: _build(v, hints.get(key, Any), f"{where}.{key}", problems) for key, v in given.items() if key in parameters
    }
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and key not in given:
            problems.append(f"{where}.{key}: missing; give {where}.{key}=<{_describe(hints.get(key, Any))}>")
    return None if len(problems) > before else _attempt(lambda: target(**arguments), where, problems)


def _attempt(make: Callable[[], Any], where: str, problems: list[str]) -> Any:
    try:
        return make()
    except UserError as error:
        problems.append(str(error))
    except ValueError as error:
        # Constructors say "name=value: what it must be".
        problems.append(f"{where}.{error}")
    return None


def _fits(value: Any, kind: Any) -> bool:
    origin = typing.get_origin(kind)
    if kind is Any or isinstance(kind, typing.TypeVar):
        return True
    if origin is typing.Literal:
        return value in typing.get_args(kind)
    if kind is None or kind is type(None):
        return value is None
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, origin or kind) if inspect.isclass(origin or kind) else callable(value)


def _describe(kind: Any) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return " or ".join(map(str, typing.get_args(kind)))
    if kind in (types.NoneType, None):
        return "null"
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return " or ".join(_describe(k) for k in typing.get_args(kind))
    names = {float: "a number", int: "a whole number", bool: "true or false", str: "text", list: "a list"}
    return names.get(typing.get_origin(kind) or kind, getattr(kind, "__name__", str(kind)))
