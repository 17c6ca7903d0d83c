"""One dispatched operation: what went in and came out, and how it is run without arithmetic on activations."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from micronet_cli.trace.known_tensors import SEQUENCES, layout_of, tensors_in
from micronet_cli.trace.layouts import Read
from micronet_cli.trace.level_arithmetic import ARITHMETIC, CLAMPS, Operand
from micronet_cli.trace.products import Shape, product_shape

HARDTANH_BOUNDS = (-1.0, 1.0)  # where a call names none


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

    def operands(self, value_of: Callable[[Tensor], int | None]) -> list[Operand] | None:
        """Of element-wise arithmetic; None where one is a tensor of several constants, or an option is not as usual.

        Args:
            value_of: index of the activation that a tensor is, None for a constant.
        """
        named = dict(self.kwargs)
        named.pop("memory_format", None)
        arguments = list(self.args)
        if self.kind in CLAMPS and len(arguments) < 2:
            arguments += [named.pop("min", None), named.pop("max", None)]
        if self.kind == "hardtanh":
            arguments[1:] = [*self.args[1:], *HARDTANH_BOUNDS[len(self.args) - 1 :]]
        has_factor = self.kind in ARITHMETIC and len(arguments) > 2
        if named or has_factor:
            return None
        operands = []
        for argument in arguments:
            operand = _operand(argument, value_of)
            if operand is None:
                return None
            operands.append(operand)
        return operands

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


def _operand(argument: Any, value_of: Callable[[Tensor], int | None]) -> Operand | None:
    if argument is None:
        return Operand()
    if isinstance(argument, int | float):
        return Operand(number=float(argument))
    if not isinstance(argument, Tensor):
        return None
    value = value_of(argument)
    if value is not None:
        return Operand(Read(value, layout_of(argument)))
    if argument.is_meta or argument.numel() != 1:
        return None
    return Operand(number=float(argument))


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
