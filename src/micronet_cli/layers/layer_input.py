"""What a layer reads: its first argument, given by position or by name."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


def first_input(args: tuple, kwargs: Mapping[str, Any]) -> Any:
    """The layer's input among the arguments of a call: ``layer(x)`` or ``layer(input=x)``."""
    if args:
        return args[0]
    return next(iter(kwargs.values()))


def with_first_input(x: Any, args: tuple, kwargs: Mapping[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """The arguments of a call, ``x`` in the place of the layer's input."""
    if args:
        return (x, *args[1:]), dict(kwargs)
    name = next(iter(kwargs))
    return (), {**kwargs, name: x}


def watch_input(layer: nn.Module, see: Callable[[Tensor], None]) -> RemovableHandle:
    """Show ``see`` the layer's input before every call."""

    def hook(_: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        see(first_input(args, kwargs))

    return layer.register_forward_pre_hook(hook, with_kwargs=True)
