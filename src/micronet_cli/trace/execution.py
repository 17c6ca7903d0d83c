"""One pass of a network in evaluation mode, watched operator by operator and module by module."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from micronet_cli.torch_internals import TorchDispatchMode


class Execution(TorchDispatchMode):
    """A dispatch mode with hooks on modules; inside the block gradients are off and the network evaluates.

    Args:
        model: left as it was.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def hooks(self) -> Iterator[RemovableHandle]:
        """Register the hooks that watch the modules."""
        raise NotImplementedError

    def __enter__(self) -> "Execution":
        self._context = self._watched()
        self._context.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._context.__exit__(*error)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        modes = {module: module.training for module in self.model.modules()}
        handles = list(self.hooks())
        try:
            with torch.no_grad():
                self.model.eval()
                yield
        finally:
            for handle in handles:
                handle.remove()
            for module, training in modes.items():
                module.training = training
