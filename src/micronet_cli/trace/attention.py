"""Attention between what parameters alone make and what depends on the example, which torch's kernel refuses."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from micronet_cli.trace.known_tensors import KnownTensors

OTHER_DEVICES = "Expected query, key, and value to have the same device type"  # its message


class AttentionOnMeta(TorchFunctionMode):
    """Hands attention stand-ins for tensors that do not depend on the example: a pool's learned query, say.

    Every function call costs time under this mode, so it is only entered where it is needed.
    """

    def __init__(self, known: KnownTensors) -> None:
        super().__init__()
        self.known = known

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Run the function."""
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        lifted_args = [self._on_meta(argument) for argument in args]
        lifted_kwargs = {}
        for name, value in kwargs.items():
            lifted_kwargs[name] = self._on_meta(value)
        return func(*lifted_args, **lifted_kwargs)

    def _on_meta(self, argument: Any) -> Any:
        if not isinstance(argument, Tensor) or argument.is_meta:
            return argument
        return self.known.stand_in(argument)
