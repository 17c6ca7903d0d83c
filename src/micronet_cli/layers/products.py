"""Products of two computed tensors, as those of attention: their operands through quantisers of the module's own.

A module multiplies them in its forward and has no child module that reads them. Its forward therefore runs inside a
mode that sees the calls of torch's products, and hands each operand to a child module: operand 2 i and 2 i + 1 are the
left and the right one of the i-th product. In attention these are query, key, probabilities and value.
"""

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from micronet_cli.layers.attention import unfuse_attention, unfused_attention

OPERANDS = "operand_fake_quantize"  # the child that holds the quantisers by the operand's number
# Function -> place of the product's left operand among its arguments; the right one follows.
LEFT_OPERAND: dict[Callable, int] = {
    torch.matmul: 0,
    torch.bmm: 0,
    torch.mm: 0,
    torch.einsum: 1,
    Tensor.matmul: 0,
    Tensor.bmm: 0,
    Tensor.mm: 0,
}


class Products(TorchFunctionMode):
    """Sees the calls of products inside the block, fused attention as its two."""

    def operands(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """What is multiplied in the place of ``left`` and ``right``."""
        raise NotImplementedError

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Run the function."""
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            with self:
                return unfused_attention(*args, **kwargs)
        left_place = LEFT_OPERAND.get(func)
        if left_place is None or len(args) != left_place + 2:
            return func(*args, **kwargs)
        before = args[:left_place]
        left, right = self.operands(*args[left_place:])
        return func(*before, left, right, **kwargs)


class QuantizedProducts(Products):
    """Hands the operands to ``quantizers``, a child module for each operand's number; those without one stay.

    Attributes:
        seen: number of operands so far.
    """

    def __init__(self, quantizers: nn.ModuleDict) -> None:
        super().__init__()
        self.quantizers = quantizers
        self.seen = 0

    def operands(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """The quantised operands."""
        return self._quantized(left), self._quantized(right)

    def _quantized(self, operand: Tensor) -> Tensor:
        number = str(self.seen)
        self.seen += 1
        if number not in self.quantizers:
            return operand
        return self.quantizers[number](operand)


def forward_with_quantized_products(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """The forward of a module that has operand quantisers."""
    with QuantizedProducts(module.operand_fake_quantize):
        return type(module).forward(module, *args, **kwargs)


def operand_fake_quantizers(module: nn.Module) -> dict[int, nn.Module]:
    """Number of an operand -> the module that it goes through; empty where the module's products stay as they are."""
    quantizers = getattr(module, OPERANDS, None)
    if quantizers is None:
        return {}
    return {int(number): quantizer for number, quantizer in quantizers.items()}


def attach_operand_fake_quantize(module: nn.Module, number: int, quantizer: nn.Module) -> None:
    """Send an operand of the module's own products through ``quantizer``, in place of what was there.

    The module's attention is unfused for it.

    Raises:
        ValueError: the module has a forward of its own, other than its class's.
    """
    if getattr(module, OPERANDS, None) is None:
        if "forward" in vars(module):
            raise ValueError("its forward is not that of its class")
        unfuse_attention(module)
        module.operand_fake_quantize = nn.ModuleDict()
        # A method of the module, which a deep copy binds to the copy.
        module.forward = MethodType(forward_with_quantized_products, module)
    module.operand_fake_quantize[str(number)] = quantizer


def detach_operand_fake_quantizers(module: nn.Module) -> None:
    """Let the module's products be as they were; its attention stays unfused."""
    if getattr(module, OPERANDS, None) is not None:
        del module.operand_fake_quantize
        del module.forward
