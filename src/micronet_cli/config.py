"""From a composed config to objects: bound to signatures, all mistakes at once, by config path.

The one place that turns a ``_target_`` into an object. Constructors are cheap and validate their values; whatever is
heavy (a network, a data set) is built later, by a method. A config node without ``_target_`` is bound to the type that
the signature above it names, so the annotations are the schema.
"""

import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from omegaconf import DictConfig, OmegaConf

from micronet_cli.annotations import describe, fits, hints_of, is_callable, is_dataclass, is_union, parameters_of
from micronet_cli.dotted_path import OWN, borrowed, failure, is_within, locate, refusal
from micronet_cli.errors import UserError, near_misses
from micronet_cli.models.model import Model
from micronet_cli.models.own import model_constructor
from micronet_cli.overrides import group_names

MISSING = "???"
NOT_BUILT = ("experiment", "hydra", "stage")  # directories of options that are no part of a stage
SETTINGS: dict[str, Any] = {
    "name": str,
    "seed": int,
    "resume": bool,
    "debug": bool,
    "init_from": str | None,
    "runs": str | None,
    "trust": list[str] | None,
}
KINDS: dict[str, Any] = {"model": Model}  # what a group's object is, where a network may stand for it


def to_plain(cfg: Any) -> Any:
    """A resolved copy of a config node made of dicts, lists and scalars."""
    if not OmegaConf.is_config(cfg):
        return cfg
    return OmegaConf.to_container(cfg, resolve=True)


def build(node: Any, where: str, kind: Any = Any, trust: Sequence[str] | None = None) -> Any:
    """The object that one config node describes, by its ``_target_`` or ``kind``; None for null or an empty node.

    ``trust``: packages that a file's node may name beside micronet; None: the user's own config, which may name all.

    Raises:
        UserError: every mistake in the node, a line each.
    """
    if not node and kind is Any:
        return None
    binder = Binder(trust)
    built = binder.build(to_plain(node), kind, where)
    if binder.problems:
        raise UserError("\n".join(binder.problems))
    return built


def named_packages(cfg: Any) -> list[str]:
    """Packages beside micronet's whose names stand in the groups of the user's own config."""
    binder = Binder()
    plain = to_plain(cfg)
    for group in (name for name in group_names() if name not in NOT_BUILT):
        node = plain.get(group)
        if isinstance(node, Mapping) and "_target_" in node:
            binder.build(node, KINDS.get(group, Any), group)
    module = (plain.get("stage") or {}).get("module")
    named = [*binder.named, *([module] if isinstance(module, str) else [])]
    return _packages(named)


def packages_named(node: Any, where: str, kind: Any = Any) -> tuple[str, ...]:
    """Packages beside micronet's that one node of the user's own names."""
    binder = Binder()
    binder.build(node, kind, where)
    return tuple(_packages(binder.named))


def _packages(paths: Sequence[str]) -> list[str]:
    """The packages beside micronet's in which the dotted paths begin."""
    foreign = [path for path in paths if not is_within(path, [OWN])]
    return sorted({path.partition(".")[0] for path in foreign})


def refused_names(node: Any, group: str, trust: Sequence[str]) -> list[str]:
    """Why a file may not name what its config of a group names, a line each; nothing refused is imported."""
    binder = Binder(trust)
    binder.build(to_plain(node), KINDS.get(group, Any), group)
    return binder.refused


def check_config(cfg: DictConfig) -> dict[str, Any]:
    """Build every group of ``cfg``: group name -> object (None where the group is ``none``).

    Raises:
        UserError: every mistake in the whole config, a line each.
    """
    plain = to_plain(cfg)
    groups = [name for name in group_names() if name not in NOT_BUILT]
    binder = Binder()
    problems = binder.problems
    problems += _unknown_keys(plain, known={*groups, *SETTINGS, "stage"})
    for key, kind in SETTINGS.items():
        if key in plain:
            binder.build(plain[key], kind, key)
    seed = plain.get("seed")
    if isinstance(seed, int) and seed < 0:
        problems.append(f"seed={seed}: must be at least 0")
    built = {}
    for group in groups:
        built[group] = _build_group(plain.get(group), group, binder)
    if problems:
        raise UserError("\n".join(problems))
    return built


def _unknown_keys(plain: Mapping[str, Any], known: set[str]) -> list[str]:
    problems = []
    for key in plain:
        if key not in known:
            problems.append(f"{key}: unknown key{near_misses(key, known)}")
    return problems


def _build_group(node: Any, group: str, binder: "Binder") -> Any:
    if not node:
        return None
    if "_target_" not in node:
        first_key = next(iter(node))
        binder.problems.append(f"{group}.{first_key}: {group}=none takes no keys; choose an option, {group}=<name>")
        return None
    return binder.build(node, KINDS.get(group, Any), group)


@dataclass
class Binder:
    """Config nodes to objects.

    Attributes:
        trust: the packages that a file's nodes may name beside micronet; None: nodes are the user's own.
        problems: what is wrong, a line each.
        named: every dotted path that was followed.
        refused: those of ``problems`` that are about trust.
    """

    trust: Sequence[str] | None = None
    problems: list[str] = field(default_factory=list)
    named: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def build(self, value: Any, kind: Any, where: str) -> Any:
        """``value`` as an instance of the annotation ``kind``; what is wrong goes to ``self.problems``."""
        origin = typing.get_origin(kind)
        if is_union(kind):
            return self._build_union(value, typing.get_args(kind), where)
        if isinstance(value, Mapping):
            if "_target_" in value or is_dataclass(kind):
                return self._build_call(value, kind, where)
            if kind is Any or origin in (dict, Mapping):
                return self._build_items(value, kind, where)
        if isinstance(value, str) and is_callable(kind):
            return self._locate(value, where)
        if isinstance(value, list) and (kind is list or origin in (list, tuple)):
            return self._build_list(value, kind, where)
        if not fits(value, kind):
            self.problems.append(f"{where}={value!r}: must be {describe(kind)}")
        return value

    def _build_items(self, value: Mapping, kind: Any, where: str) -> dict[str, Any]:
        arguments = typing.get_args(kind)
        item_kind = arguments[1] if arguments else Any
        built = {}
        for key, item in value.items():
            built[key] = self.build(item, item_kind, f"{where}.{key}")
        return built

    def _build_list(self, value: list, kind: Any, where: str) -> list[Any]:
        arguments = typing.get_args(kind)
        item_kind = arguments[0] if arguments else Any
        built = []
        for index, item in enumerate(value):
            built.append(self.build(item, item_kind, f"{where}[{index}]"))
        return built

    def _build_union(self, value: Any, kinds: tuple, where: str) -> Any:
        if value is None and types.NoneType in kinds:
            return None
        telling: list[str] = []
        for kind in kinds:
            attempt = replace(self, problems=[])
            built = attempt.build(value, kind, where)
            if not attempt.problems:
                return built
            # A mapping's or a dotted path's own mistakes say more than "must be a number or null".
            own_mistakes = isinstance(value, Mapping) and kind is not types.NoneType
            if isinstance(value, str) and is_callable(kind):
                own_mistakes = True
            if own_mistakes and not telling:
                telling = attempt.problems
        if not telling:
            described = " or ".join(describe(kind) for kind in kinds)
            telling = [f"{where}={value!r}: must be {described}"]
        self.problems.extend(telling)
        return value

    def _build_call(self, value: Mapping, kind: Any, where: str) -> Any:
        """The call of ``value``'s ``_target_``, or of ``kind``, with its other keys; None after a mistake."""
        given = {key: argument for key, argument in value.items() if argument != MISSING}
        path = given.pop("_target_", None)
        target = kind if path is None else self._locate(path, where)
        if target is None:
            return None
        if not callable(target):
            self.problems.append(f"{where}._target_={path}: must be a class or a function")
            return None
        if kind is Model:
            target = model_constructor(target)
        parameters, takes_any = parameters_of(target)
        hints = hints_of(target)
        known = given.keys() if takes_any else given.keys() & parameters.keys()
        for key in given.keys() - known:
            self.problems.append(f"{where}.{key}: unknown key{near_misses(key, parameters)}")
        found_before = len(self.problems)
        arguments = {}
        for key in filter(known.__contains__, given):
            arguments[key] = self.build(given[key], hints.get(key, Any), f"{where}.{key}")
        for key, parameter in parameters.items():
            if parameter.default is parameter.empty and key not in given:
                described = describe(hints.get(key, Any))
                self.problems.append(f"{where}.{key}: missing; give {where}.{key}=<{described}>")
        if len(self.problems) > found_before:
            return None
        return self._called(target, arguments, path, where)

    def _locate(self, path: Any, where: str) -> Any:
        """What a dotted path names; None after a mistake."""
        if not isinstance(path, str):
            self.problems.append(f"{where}._target_={path!r}: must be a dotted path")
            return None
        if self.trust is not None and self._refuse(refusal(path, self.trust), where):
            return None
        self.named.append(path)
        try:
            found = locate(path, where)
        except UserError as error:
            self.problems.append(str(error))
            return None
        if self.trust is not None and self._refuse(borrowed(path, found), where):
            return None
        return found

    def _refuse(self, reason: str | None, where: str) -> bool:
        """Note why a file may not name something; whether there is a reason."""
        if reason is None:
            return False
        self.problems.append(f"{where}: {reason}")
        self.refused.append(f"{where}: {reason}")
        return True

    def _called(self, target: Callable[..., Any], arguments: dict[str, Any], path: str | None, where: str) -> Any:
        own = path is None or is_within(path, [OWN])
        try:
            return target(**arguments)
        except UserError as error:
            self.problems.append(str(error))
        except ValueError as error:
            # Constructors say "name=value: what it must be".
            names_a_key = own or str(error).partition("=")[0] in arguments
            self.problems.append(f"{where}.{error}" if names_a_key else f"{where}: {path} ({failure(error)})")
        except Exception as error:
            if own:
                raise
            self.problems.append(f"{where}: {path} ({failure(error)})")
        return None
