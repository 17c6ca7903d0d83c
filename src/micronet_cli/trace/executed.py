"""One dispatched operation: what went in and came out, and how it is run without arithmetic on activations."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from micronet_cli.trace.known_tensors import SEQUENCES, tensors_in
from micronet_cli.trace.products import Shape, product_shape


@dataclass(slots=True)
class Executed:
    """An operation that was executed.

    Attributes:
        kind: see ``kinds.kind_of``.
        args, kwargs: what it was called with.
        tensors: those among them, in order.
        outputs: the tensors that it gave.
    """

    kind: str
    args: tuple
    kwargs: dict[str, Any]
    tensors: list[Tensor]
    outputs: list[Tensor]

    def product(self, depends: Callable[[Tensor], bool]) -> Shape:
        """The shape of its dot products; ``depends`` says which tensors depend on the example."""
        activations = []
        for argument in self.args:
            is_activation = isinstance(argument, Tensor) and depends(argument)
            activations.append(is_activation)
        return product_shape(self.kind, self.args, self.outputs[0], tuple(activations))

    @property
    def plain_arguments(self) -> tuple[Any, ...]:
        """All positional arguments but the first, None in the place of a tensor."""
        arguments = []
        for argument in self.args[1:]:
            arguments.append(_plain(argument))
        return tuple(arguments)

    @property
    def plain_options(self) -> dict[str, Any]:
        """The arguments by name, None in the place of a tensor."""
        options = {}
        for name, value in self.kwargs.items():
            options[name] = _plain(value)
        return options


def run(operator: Any, args: tuple, kwargs: dict, tensors: list[Tensor]) -> Any:
    """The operator's result, on meta tensors throughout where one of its tensors is."""
    on_meta = [tensor.is_meta for tensor in tensors]
    mixed = any(on_meta) and not all(on_meta)
    if not mixed:
        return operator(*args, **kwargs)
    lifted_args = [_lift(argument) for argument in args]
    lifted_kwargs = {}
    for name, value in kwargs.items():
        lifted_kwargs[name] = _lift(value)
    return operator(*lifted_args, **lifted_kwargs)


def tensors_of(result: Any) -> list[Tensor]:
    """The tensors that an operator returned."""
    return list(tensors_in((result,)))


def _lift(leaf: Any) -> Any:
    """Meta copies of the tensors in an argument."""
    if isinstance(leaf, SEQUENCES):
        items = [_lift(item) for item in leaf]
        return type(leaf)(items)
    if not isinstance(leaf, Tensor) or leaf.is_meta:
        return leaf
    return torch.empty_strided(leaf.shape, leaf.stride(), dtype=leaf.dtype, device="meta")


def _plain(argument: Any) -> Any:
    if isinstance(argument, Tensor):
        return None
    if isinstance(argument, SEQUENCES):
        items = [_plain(item) for item in argument]
        return tuple(items)
    return argument
