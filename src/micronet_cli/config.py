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

from micronet_cli.annotations import describe, fits, is_callable, is_dataclass, is_union
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
    if not OmegaConf.is_config(cfg):
        return cfg
    return OmegaConf.to_container(cfg, resolve=True)


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
        near = near_misses(name, dir(found))
        raise UserError(f"{where}: {path!r} cannot be imported; {module} has no {name}{near}")
    return getattr(found, name)


def build(node: Any, where: str, kind: Any = Any) -> Any:
    """The object that one config node describes, by its ``_target_`` or ``kind``; None for null or an empty node.

    Raises:
        UserError: every mistake in the node, a line each.
    """
    if not node and kind is Any:
        return None
    problems: list[str] = []
    built = _build(to_plain(node), kind, where, problems)
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
    problems = _unknown_keys(plain, known={*groups, *SETTINGS, "stage"})
    for key, kind in SETTINGS.items():
        if key in plain:
            _build(plain[key], kind, key, problems)
    seed = plain.get("seed")
    if isinstance(seed, int) and seed < 0:
        problems.append(f"seed={seed}: must be at least 0")
    built = {}
    for group in groups:
        built[group] = _build_group(plain.get(group), group, problems)
    if problems:
        raise UserError("\n".join(problems))
    return built


def _unknown_keys(plain: Mapping[str, Any], known: set[str]) -> list[str]:
    problems = []
    for key in plain:
        if key not in known:
            problems.append(f"{key}: unknown key{near_misses(key, known)}")
    return problems


def _build_group(node: Any, group: str, problems: list[str]) -> Any:
    if not node:
        return None
    if "_target_" not in node:
        first_key = next(iter(node))
        problems.append(f"{group}.{first_key}: {group}=none takes no keys; choose an option, {group}=<name>")
        return None
    return _build(node, Any, group, problems)


def _build(value: Any, kind: Any, where: str, problems: list[str]) -> Any:
    """``value`` as an instance of the annotation ``kind``; what is wrong goes to ``problems``."""
    origin = typing.get_origin(kind)
    if is_union(kind):
        return _build_union(value, typing.get_args(kind), where, problems)
    if isinstance(value, Mapping):
        if "_target_" in value or is_dataclass(kind):
            return _build_call(value, kind, where, problems)
        if kind is Any or origin in (dict, Mapping):
            return _build_items(value, kind, where, problems)
    if isinstance(value, str) and is_callable(kind):
        return _attempt(lambda: locate(value, where), where, problems)
    if isinstance(value, list) and (kind is list or origin in (list, tuple)):
        return _build_list(value, kind, where, problems)
    if not fits(value, kind):
        problems.append(f"{where}={value!r}: must be {describe(kind)}")
    return value


def _build_items(value: Mapping, kind: Any, where: str, problems: list[str]) -> dict[str, Any]:
    arguments = typing.get_args(kind)
    item_kind = arguments[1] if arguments else Any
    built = {}
    for key, item in value.items():
        built[key] = _build(item, item_kind, f"{where}.{key}", problems)
    return built


def _build_list(value: list, kind: Any, where: str, problems: list[str]) -> list[Any]:
    arguments = typing.get_args(kind)
    item_kind = arguments[0] if arguments else Any
    built = []
    for index, item in enumerate(value):
        built.append(_build(item, item_kind, f"{where}[{index}]", problems))
    return built


def _build_union(value: Any, kinds: tuple, where: str, problems: list[str]) -> Any:
    if value is None and types.NoneType in kinds:
        return None
    telling: list[str] = []
    for kind in kinds:
        attempt: list[str] = []
        built = _build(value, kind, where, attempt)
        if not attempt:
            return built
        # A mapping's or a dotted path's own mistakes say more than "must be a number or null".
        own_mistakes = isinstance(value, Mapping) and kind is not types.NoneType
        if isinstance(value, str) and is_callable(kind):
            own_mistakes = True
        if own_mistakes and not telling:
            telling = attempt
    if not telling:
        described = " or ".join(describe(kind) for kind in kinds)
        telling = [f"{where}={value!r}: must be {described}"]
    problems.extend(telling)
    return value


def _build_call(value: Mapping, kind: Any, where: str, problems: list[str]) -> Any:
    """The call of ``value``'s ``_target_``, or of ``kind``, with ``value``'s other keys; None after a mistake."""
    given = {key: argument for key, argument in value.items() if argument != MISSING}
    path = given.pop("_target_", None)
    target = kind if path is None else _attempt(lambda: locate(path, where), where, problems)
    if target is None:
        return None
    parameters = inspect.signature(target).parameters
    annotated = target.__init__ if inspect.isclass(target) else target
    hints = typing.get_type_hints(annotated)
    for key in given.keys() - parameters.keys():
        problems.append(f"{where}.{key}: unknown key{near_misses(key, parameters)}")
    found_before = len(problems)
    arguments = {}
    for key, argument in given.items():
        if key in parameters:
            arguments[key] = _build(argument, hints.get(key, Any), f"{where}.{key}", problems)
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and key not in given:
            described = describe(hints.get(key, Any))
            problems.append(f"{where}.{key}: missing; give {where}.{key}=<{described}>")
    if len(problems) > found_before:
        return None
    return _attempt(lambda: target(**arguments), where, problems)


def _attempt(make: Callable[[], Any], where: str, problems: list[str]) -> Any:
    try:
        return make()
    except UserError as error:
        problems.append(str(error))
    except ValueError as error:
        # Constructors say "name=value: what it must be".
        problems.append(f"{where}.{error}")
    return None
