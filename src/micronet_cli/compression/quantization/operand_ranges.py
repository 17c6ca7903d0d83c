"""What a float network multiplies, shown to the operand quantisers of its quantised copy."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from micronet_cli.layers.fake_quantize import FakeQuantize
from micronet_cli.layers.products import (
    attach_operand_fake_quantize,
    detach_operand_fake_quantizers,
    operand_fake_quantizers,
)


class _Shown(nn.Module):
    """Shows ``quantizer`` what goes through."""

    def __init__(self, quantizer: FakeQuantize) -> None:
        super().__init__()
        self.quantizer = quantizer

    def forward(self, x: Tensor) -> Tensor:
        """The same."""
        self.quantizer(x)
        return x


@contextmanager
def operands_shown(
    model: nn.Module, reference: nn.Module, started: Callable[[nn.Module, str], FakeQuantize | None]
) -> Iterator[None]:
    """Inside the block, every operand quantiser of ``model`` sees the operand that ``reference`` goes on with in float.

    Args:
        model: quantised.
        reference: of the same modules, without operand quantisers.
        started: (module, name of its child) -> that quantiser, made to track what it sees; None where it tracks none.
    """
    watched = []
    for name, module in model.named_modules():
        for number in operand_fake_quantizers(module):
            quantizer = started(module.operand_fake_quantize, str(number))
            if quantizer is not None:
                in_float = reference.get_submodule(name)
                attach_operand_fake_quantize(in_float, number, _Shown(quantizer))
                watched.append(in_float)
    try:
        yield
    finally:
        for in_float in watched:
            detach_operand_fake_quantizers(in_float)
