"""Run a network again from one layer on: what comes before the layer is remembered, not computed.

Every module that had returned before the layer was called gives back what it gave then. The rest is executed as it
is, so any network runs: what lies between modules (a residual addition) is the network's own code.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from micronet_cli.layers.rules import shared_parameters
from micronet_cli.torch_internals import tree_map
from micronet_cli.trace.execution import Execution
from micronet_cli.trace.observe import observe

Key = tuple[nn.Module, int]  # a module, and how many calls of it came before


@dataclass(slots=True)
class _Remembered:
    """One call of a module: when it began and ended (in module calls), and what it gave."""

    start: int
    end: int
    output: Any


@dataclass(slots=True)
class _Call:
    """A call of a module that waits for its result.

    Attributes:
        module: what is called.
        number: how many calls of it came before.
        forward: its own computation.
        inputs, keywords: what it is called with.
    """

    module: nn.Module
    number: int
    forward: Callable
    inputs: tuple
    keywords: dict[str, Any]

    @property
    def key(self) -> Key:
        """What tells it from other calls."""
        return self.module, self.number

    def execute(self) -> Any:
        """What the module itself gives."""
        return self.forward(*self.inputs, **self.keywords)


Step = Callable[[_Call], Any]


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
        self._modules = list(model.modules())
        tied = shared_parameters(model)
        self._shared: set[nn.Module] = set()
        for module in self._modules:
            own = module.parameters(recurse=False)
            if not tied.isdisjoint(own):
                self._shared.add(module)
        self._remembered: dict[Key, _Remembered] = {}
        self._clock = 0
        network = observe(model, example.shape[1:])
        execution = Execution.of(network)
        named = dict(model.named_modules())
        self._overwritten = {(named[name], number) for name, number in execution.overwritten}
        self._writers = {named[name] for name in execution.writers}
        self.bytes_per_image = execution.output_bytes

    def record(self, images: Tensor) -> Tensor:
        """The logits of ``images`` ``[N, C, H, W]``; what ``replay`` goes by from now on."""
        self._remembered.clear()
        return self._run(images, self._record)

    def replay(self, images: Tensor, layer: nn.Module) -> Tensor:
        """The logits of the recorded images with ``layer`` changed, nothing before it computed again.

        A layer that is never called as a module, or whose weight others have too, has the whole network run.
        """
        first = self._remembered.get((layer, 0))
        if first is None or layer in self._shared:
            return self._run(images, _Call.execute)

        def reuse(call: _Call) -> Any:
            return self._reuse(call, first.start)

        return self._run(images, reuse)

    @torch.no_grad()
    def _run(self, images: Tensor, step: Step) -> Tensor:
        self._clock = 0
        with _intercepted(self._modules, step):
            return self._model(images)

    def _record(self, call: _Call) -> Any:
        start = self._clock
        self._clock += 1
        output = call.execute()
        kept = output
        if call.key in self._overwritten:
            kept = _copy(output)
        self._remembered[call.key] = _Remembered(start, self._clock, kept)
        self._clock += 1
        return output

    def _reuse(self, call: _Call, before: int) -> Any:
        """What a module gave, where it had returned by the time ``before``; else what it gives now."""
        remembered = self._remembered.get(call.key)
        if remembered is None or remembered.end > before:
            return call.execute()
        # Within a parent that is not executed no calls are counted: what is called more than once is always executed.
        called_again = (call.module, 1) in self._remembered
        if called_again or call.module in self._writers:
            return call.execute()
        if call.key in self._overwritten:
            return _copy(remembered.output)
        return remembered.output


@contextmanager
def _intercepted(modules: Collection[nn.Module], step: Step) -> Iterator[None]:
    """Let ``step`` stand for every module's forward."""
    counts: dict[nn.Module, int] = {}

    def stand_in(module: nn.Module, forward: Callable) -> Callable:
        def call(*inputs: Any, **keywords: Any) -> Any:
            number = counts.get(module, 0)
            counts[module] = number + 1
            return step(_Call(module, number, forward, inputs, keywords))

        return call

    # A forward of its own, which a module need not have beside its class's.
    own = {module: vars(module).get("forward") for module in modules}
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
    return tree_map(_copy_of_leaf, tree)


def _copy_of_leaf(leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        return leaf.clone()
    return leaf
