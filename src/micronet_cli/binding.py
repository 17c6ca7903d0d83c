"""Config nodes bound to signatures: the one place that turns a ``_target_`` into an object.

Constructors are cheap and validate their values; whatever is heavy (a network, a data set) is built later, by a method.
A config node without ``_target_`` is bound to the type that the signature above it names, so the annotations are the
schema.
"""

import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from micronet_cli.annotations import describe, fits, hints_of, is_callable, is_dataclass, is_union, parameters_of
from micronet_cli.dotted_path import OWN, borrowed, failure, is_within, locate, refusal
from micronet_cli.errors import UserError, near_misses
from micronet_cli.models.model import Model
from micronet_cli.models.own import model_constructor

MISSING = "???"


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
            kinds = typing.get_args(kind)
            return self._build_union(value, kinds, where)
        if isinstance(value, Mapping):
            if "_target_" in value or is_dataclass(kind):
                return self._build_call(value, kind, where)
            if kind is Any or origin in (dict, Mapping):
                return self._build_items(value, kind, where)
        if isinstance(value, str) and is_callable(kind):
            return self._locate(value, where)
        takes_list = kind is list or origin in (list, tuple)
        if isinstance(value, list) and takes_list:
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
            is_mapping = isinstance(value, Mapping) and kind is not types.NoneType
            is_path = isinstance(value, str) and is_callable(kind)
            if not telling and (is_mapping or is_path):
                telling = attempt.problems
        if not telling:
            described = " or ".join(describe(kind) for kind in kinds)
            telling = [f"{where}={value!r}: must be {described}"]
        self.problems.extend(telling)
        return value

    def _build_call(self, value: Mapping, kind: Any, where: str) -> Any:
        """The call of ``value``'s ``_target_``, or of ``kind``, with its other keys; None after a mistake."""
        given = dict(value)
        for key, argument in value.items():
            if argument == MISSING:
                del given[key]
        path = given.pop("_target_", None)
        target = kind
        if path is not None:
            target = self._locate(path, where)
        if target is None:
            return None
        if not callable(target):
            self.problems.append(f"{where}._target_={path}: must be a class or a function")
            return None
        if kind is Model:
            target = model_constructor(target)
        arguments = self._arguments(target, given, where)
        if arguments is None:
            return None
        return self._called(target, arguments, path, where)

    def _arguments(self, target: Callable[..., Any], given: Mapping[str, Any], where: str) -> dict[str, Any] | None:
        """What ``target`` is called with; None after a mistake in a value, or without one that it needs."""
        parameters, takes_any = parameters_of(target)
        hints = hints_of(target)
        known = given
        if not takes_any:
            known = {key: argument for key, argument in given.items() if key in parameters}
        # With a key too many the object is built nonetheless, so that what is wrong with its values is told too.
        for key in given:
            if key not in known:
                self.problems.append(f"{where}.{key}: unknown key{near_misses(key, parameters)}")
        found_before = len(self.problems)
        arguments = {}
        for key, argument in known.items():
            kind = hints.get(key, Any)
            arguments[key] = self.build(argument, kind, f"{where}.{key}")
        for key, parameter in parameters.items():
            if parameter.default is parameter.empty and key not in given:
                kind = hints.get(key, Any)
                self.problems.append(f"{where}.{key}: missing; give {where}.{key}=<{describe(kind)}>")
        if len(self.problems) > found_before:
            return None
        return arguments

    def _locate(self, path: Any, where: str) -> Any:
        """What a dotted path names; None after a mistake."""
        if not isinstance(path, str):
            self.problems.append(f"{where}._target_={path!r}: must be a dotted path")
            return None
        if self.trust is not None:
            reason = refusal(path, self.trust)
            if self._refuse(reason, where):
                return None
        self.named.append(path)
        try:
            found = locate(path, where)
        except UserError as error:
            self.problems.append(str(error))
            return None
        if self.trust is not None:
            reason = borrowed(path, found)
            if self._refuse(reason, where):
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
            name, _, _ = str(error).partition("=")
            if own or name in arguments:
                self.problems.append(f"{where}.{error}")
            else:
                self.problems.append(f"{where}: {path} ({failure(error)})")
        except Exception as error:
            if own:
                raise
            self.problems.append(f"{where}: {path} ({failure(error)})")
        return None
