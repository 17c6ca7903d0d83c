"""Run a network again from one layer on: what comes before the layer is remembered, not computed.

Every module that had returned before the layer was called gives back what it gave then. The rest is executed as it
is, so any network runs: what lies between modules (a residual addition) is the network's own code.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from micronet_cli.layers.rules import shared_parameters
from micronet_cli.torch_internals import tree_map
from micronet_cli.trace.execution import Execution
from micronet_cli.trace.observe import observe


@dataclass(slots=True)
class _Call:
    """One call of a module: when it began and ended (in module calls), and what it gave."""

    start: int
    end: int
    output: Any


class Prefix:
    """A network in evaluation mode that remembers its modules' outputs.

    In-place operations are allowed: an output that is written to later is remembered as a copy, and a module that
    writes to its input is always executed.

    Attributes:
        bytes_per_image: memory that the remembered outputs take.
    """

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        """Observe the network on images like ``example``, ``[N, C, H, W]``.

        Raises:
            ValueError: the network reads the value of a tensor in Python.
        """
        self._model = model
        self._names = {module: name for name, module in model.named_modules()}
        tied = shared_parameters(model)
        self._shared = {module for module in self._names if not tied.isdisjoint(module.parameters(recurse=False))}
        self._calls: dict[tuple[nn.Module, int], _Call] = {}
        self._clock = 0
        execution = Execution.of(observe(model, example.shape[1:]))
        modules = dict(model.named_modules())
        self._overwritten = {(modules[name], number) for name, number in execution.overwritten}
        self._writers = {modules[name] for name in execution.writers}
        self.bytes_per_image = execution.output_bytes

    def record(self, images: Tensor) -> Tensor:
        """The logits of ``images`` ``[N, C, H, W]``; what ``replay`` goes by from now on."""
        self._calls.clear()
        return self._run(images, self._record)

    def replay(self, images: Tensor, layer: nn.Module) -> Tensor:
        """The logits of the recorded images with ``layer`` changed, nothing before it computed again.

        A layer that is never called as a module, or whose weight others have too, has the whole network run.
        """
        first = None if layer in self._shared else self._calls.get((layer, 0))
        if first is None:
            return self._run(images, _execute)
        return self._run(images, lambda *call: self._reuse(first.start, *call))

    @property
    def order(self) -> list[str]:
        """Names of the modules called, in the order of their first call."""
        firsts = {self._names[module]: call.start for (module, number), call in self._calls.items() if not number}
        return sorted(firsts, key=firsts.__getitem__)

    @torch.no_grad()
    def _run(self, images: Tensor, step: Callable) -> Tensor:
        self._clock = 0
        with _intercepted(self._names, step):
            return self._model(images)

    def _record(self, key: tuple[nn.Module, int], forward: Callable, inputs: tuple, named: dict) -> Any:
        start, self._clock = self._clock, self._clock + 1
        output = forward(*inputs, **named)
        kept = _copy(output) if key in self._overwritten else output
        self._calls[key] = _Call(start, self._clock, kept)
        self._clock += 1
        return output

    def _reuse(self, before: int, key: tuple[nn.Module, int], forward: Callable, inputs: tuple, named: dict) -> Any:
        call = self._calls.get(key)
        # Within a parent that is not executed no calls are counted: what is called more than once is always executed.
        if call is None or call.end > before or key[0] in self._writers or (key[0], 1) in self._calls:
            return forward(*inputs, **named)
        return _copy(call.output) if key in self._overwritten else call.output


def _execute(key: tuple[nn.Module, int], forward: Callable, inputs: tuple, named: dict) -> Any:
    return forward(*inputs, **named)


@contextmanager
def _intercepted(modules: dict[nn.Module, str], step: Callable) -> Iterator[None]:
    """Let ``step(key, forward, inputs, keywords)`` stand for every module's forward; key: (module, number of call)."""
    counts: dict[nn.Module, int] = {}

    def stand_in(module: nn.Module, forward: Callable) -> Callable:
        def call(*inputs: Any, **named: Any) -> Any:
            number = counts.get(module, 0)
            counts[module] = number + 1
            return step((module, number), forward, inputs, named)

        return call

    own = {module: module.__dict__.get("forward") for module in modules}
    for module in modules:
        module.forward = stand_in(module, module.forward)
    try:
        yield
    finally:
        for module, forward in own.items():
            if forward is None:
                del module.forward
            else:
                module.forward = forward


def _copy(tree: Any) -> Any:
    return tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, tree)
