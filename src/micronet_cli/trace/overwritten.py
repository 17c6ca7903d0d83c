"""Tensors that a network overwrites while it is observed, so that it can be left as it was."""

from torch import Tensor

from micronet_cli.torch_internals import memory_of


class Overwritten:
    """Values of tensors before they were written to."""

    def __init__(self) -> None:
        self._before: dict[int, tuple[Tensor, Tensor]] = {}

    def keep(self, tensor: Tensor) -> None:
        """Keep the values that a tensor has now, unless they are kept already."""
        memory = memory_of(tensor)
        if memory not in self._before and not tensor.is_meta:
            self._before[memory] = (tensor, tensor.clone())

    def restore(self) -> None:
        """Write all of them back."""
        for tensor, before in self._before.values():
            tensor.copy_(before)
        self._before.clear()
