"""What an annotation of a signature asks of a config value, and what a user calls it."""

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

# What a user calls a kind of value.
WORDS = {
    types.NoneType: "null",
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    str: "text",
    list: "a list",
    tuple: "a list",
    dict: "a mapping",
    Mapping: "a mapping",
    Callable: "the dotted path of a function",
}


def is_union(kind: Any) -> bool:
    """Whether it is ``A | B``, in either spelling."""
    return typing.get_origin(kind) in (typing.Union, types.UnionType)


def is_dataclass(kind: Any) -> bool:
    """Whether a mapping can be bound to it."""
    return inspect.isclass(kind) and dataclasses.is_dataclass(kind)


def is_callable(kind: Any) -> bool:
    """Whether it is ``Callable``, whatever it takes and gives."""
    return Callable in (kind, typing.get_origin(kind))


def fits(value: Any, kind: Any) -> bool:
    """Whether a value that is no mapping to bind is of this kind already.

    >>> fits(1, float), fits(True, float), fits("a", str)
    (True, False, True)
    """
    origin = typing.get_origin(kind)
    if kind is Any or isinstance(kind, typing.TypeVar):
        return True
    if origin is typing.Literal:
        return value in typing.get_args(kind)
    if kind is None:
        return value is None
    if isinstance(value, bool) and kind in (int, float):
        return False  # to Python, true is the whole number 1
    if kind is float:
        return isinstance(value, int | float)
    plain_kind = origin or kind
    if inspect.isclass(plain_kind):
        return isinstance(value, plain_kind)
    return callable(value)


def describe(kind: Any) -> str:
    """What a value of this kind is, in a user's words.

    >>> describe(float | None), describe(typing.Literal["keep", "drop"]), describe(Callable[..., Any])
    ('a number or null', 'keep or drop', 'the dotted path of a function')
    """
    origin = typing.get_origin(kind)
    arguments = typing.get_args(kind)
    if origin is typing.Literal:
        return " or ".join(str(choice) for choice in arguments)
    if is_union(kind):
        return " or ".join(describe(member) for member in arguments)
    if kind is None:
        return WORDS[types.NoneType]
    if is_dataclass(kind):
        keys = [field.name for field in dataclasses.fields(kind)]
        return f"a mapping with the keys {', '.join(keys)}"
    plain_kind = origin or kind
    name = getattr(kind, "__name__", str(kind))
    return WORDS.get(plain_kind, name)


def parameters_of(target: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], bool]:
    """The parameters that can be given by name, and whether any other name is taken too."""
    try:
        found = inspect.signature(target).parameters
    except ValueError:  # some of C's functions do not tell
        return {}, True
    unnamed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY)
    named = {key: parameter for key, parameter in found.items() if parameter.kind not in unnamed}
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in found.values())
    return named, takes_any


def hints_of(target: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a target's parameters; none where they name what is not there at run time."""
    annotated = target.__init__ if inspect.isclass(target) else target
    try:
        return typing.get_type_hints(annotated)
    except (NameError, TypeError):
        return {}
