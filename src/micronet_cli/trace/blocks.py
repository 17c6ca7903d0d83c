"""Blocks of a network: the modules between two points where nothing but one tensor is alive."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from micronet_cli.layers.layer_input import first_input, with_first_input
from micronet_cli.layers.rules import compressible_layers
from micronet_cli.torch_internals import tree_leaves
from micronet_cli.trace.observe import observe
from micronet_cli.trace.records import Call, TracedNetwork

# A module whose layers could be told apart by such points is one block up to so many of them.
MOST_SEPARABLE = 8


@dataclass(frozen=True)
class Block:
    """A module that makes one tensor of one, and all that is done meanwhile.

    Attributes:
        name: of the module.
        layers: names of the layers that it executes, in order.
        args, kwargs: what it is called with, None in the place of its input.
        multiplications: an image.
        elements: of all tensors that it makes of an image.
    """

    name: str
    layers: tuple[str, ...]
    args: tuple
    kwargs: Mapping[str, Any]
    multiplications: float
    elements: int

    def run(self, model: nn.Module, x: Tensor) -> Tensor:
        """What the block of ``model`` gives of ``x``, ``[N, ...]`` each."""
        module = model.get_submodule(self.name)
        args, kwargs = with_first_input(x, self.args, self.kwargs)
        return module(*args, **kwargs)


def blocks(model: nn.Module, input_shape: Sequence[int]) -> list[Block]:
    """The smallest modules, of several layers each, that begin and end where one tensor alone is alive; in order.

    A residual connection keeps a second tensor alive until it is added, so the module around it is a block, and the
    branch inside is none. A module that holds two blocks is none itself, and neither is the network.

    Args:
        model: a network without quantisers of activations; it is left as it was.
        input_shape: (channels, height, width).
    """
    arguments = _Arguments(model)
    try:
        network = observe(model, input_shape)
    finally:
        arguments.close()
    finder = _Finder(model, network, arguments)
    names = finder.within("")
    return sorted((finder.candidates[name] for name in names), key=lambda block: finder.calls[block.name].first)


@dataclass
class _Arguments:
    """What the modules of a network are called with, of those that make one tensor of one.

    Attributes:
        of: module -> positional arguments, named ones.
    """

    model: nn.Module
    of: dict[str, tuple[tuple, dict[str, Any]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._handles = []
        for name, module in self.model.named_modules():
            hook = self._hook(name)
            handle = module.register_forward_hook(hook, with_kwargs=True)
            self._handles.append(handle)

    def close(self) -> None:
        """Look no further."""
        for handle in self._handles:
            handle.remove()

    def _hook(self, name: str) -> Any:
        def note(_: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
            tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            if len(tensors) != 1 or not isinstance(output, Tensor):
                return
            if first_input(args, kwargs) is tensors[0]:
                self.of[name] = with_first_input(None, args, kwargs)

        return note


class _Alive:
    """How many activations are alive between two operations, and which are."""

    def __init__(self, network: TracedNetwork) -> None:
        self._last_read: dict[int, int] = {}
        self._made = {}
        for index, op in enumerate(network.ops):
            for value in op.inputs:
                self._last_read[value] = index
            for value in op.outputs:
                self._made[value] = index
        for value in network.outputs:
            self._last_read[value] = len(network.ops)
        changes = [0] * (len(network.ops) + 2)
        for value, last in self._last_read.items():
            changes[self._made.get(value, -1) + 1] += 1
            changes[last + 1] -= 1
        self._counts = []
        count = 0
        for change in changes:
            count += change
            self._counts.append(count)

    def alone(self, place: int) -> bool:
        """Whether one activation alone was made before operation ``place`` and is read from there on."""
        return self._counts[place] == 1

    def is_alone(self, value: int, place: int) -> bool:
        """Whether ``value`` is the one."""
        lives = self._made.get(value, -1) < place <= self._last_read.get(value, -1)
        return lives and self.alone(place)


class _Finder:
    """Finds the blocks among the modules that were called once."""

    def __init__(self, model: nn.Module, network: TracedNetwork, arguments: _Arguments) -> None:
        self._model = model
        self._network = network
        self._alive = _Alive(network)
        compressible = compressible_layers(model)
        self._layers = sorted(
            (call for call in network.calls if call.module in compressible), key=lambda call: call.first
        )
        self._starts = [call.first for call in self._layers]
        executions: dict[str, int] = {}
        self.calls: dict[str, Call] = {}
        for call in network.calls:
            executions[call.module] = executions.get(call.module, 0) + 1
            self.calls[call.module] = call
        self.candidates: dict[str, Block] = {}
        for name, call in self.calls.items():
            if name and executions[name] == 1 and name in arguments.of and self._is_block(call):
                self.candidates[name] = self._block(call, *arguments.of[name])

    def within(self, name: str) -> list[str]:
        """The blocks of a module: itself where it holds fewer than two, and is more than what it holds."""
        found = []
        for child, _ in self._model.get_submodule(name).named_children():
            path = f"{name}.{child}" if name else child
            found += self.within(path)
        block = self.candidates.get(name)
        if block is None or len(found) > 1:
            return found
        if found and self.candidates[found[0]].layers == block.layers:
            return found
        return [name]

    def _inside(self, call: Call) -> list[Call]:
        """The calls of layers within a call."""
        first = bisect_left(self._starts, call.first)
        end = bisect_left(self._starts, call.end)
        return self._layers[first:end]

    def _is_block(self, call: Call) -> bool:
        layers = self._inside(call)
        names = {layer.module for layer in layers}
        if len(names) < 2 or len(call.outputs) != 1 or not self._alive.alone(call.first):
            return False
        # An input that is given by name is not among these.
        if not all(self._alive.is_alone(read.value, call.first) for read in call.inputs):
            return False
        if not self._alive.is_alone(call.outputs[0].value, call.end):
            return False
        # Whatever is called elsewhere too is not this block's to change.
        calls_of_them = [layer for layer in self._layers if layer.module in names]
        if len(calls_of_them) != len(layers):
            return False
        return len(names) <= MOST_SEPARABLE or not self._is_separable(layers)

    def _is_separable(self, layers: Sequence[Call]) -> bool:
        return any(self._alive.alone(layer.end) for layer in layers[:-1])

    def _block(self, call: Call, args: tuple, kwargs: Mapping[str, Any]) -> Block:
        layers = dict.fromkeys(layer.module for layer in self._inside(call))
        multiplications = 0.0
        elements = 0
        for op in self._network.ops[call.first : call.end]:
            elements += op.elements
            if op.dot is not None:
                multiplications += op.dot.multiplications
        return Block(call.module, tuple(layers), args, kwargs, multiplications, elements)
