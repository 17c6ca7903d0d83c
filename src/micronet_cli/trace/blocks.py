"""Blocks of a network: the modules between two points where nothing but one tensor is alive."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from torch import Tensor, nn

from micronet_cli.layers.layer_input import first_input, with_first_input
from micronet_cli.layers.rules import compressible_layers
from micronet_cli.torch_internals import tree_leaves
from micronet_cli.trace.observe import observe
from micronet_cli.trace.records import Call, TracedNetwork

_Given = tuple[tuple, dict[str, Any]]  # positional arguments, named ones
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
    names.sort(key=lambda name: finder.calls[name].first)
    return [finder.candidates[name] for name in names]


@dataclass
class _Arguments:
    """What the modules of a network are called with, of those that make one tensor of one.

    Attributes:
        of: module -> what it is called with, None in the place of its input.
    """

    model: nn.Module
    of: dict[str, _Given] = field(default_factory=dict)

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
            leaves = tree_leaves((args, kwargs))
            tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
            one_of_one = len(tensors) == 1 and isinstance(output, Tensor)
            if one_of_one and first_input(args, kwargs) is tensors[0]:
                self.of[name] = with_first_input(None, args, kwargs)

        return note


class _Alive:
    """How many activations are alive between two operations, and which are."""

    def __init__(self, network: TracedNetwork) -> None:
        self._last_read: dict[int, int] = {}
        self._made: dict[int, int] = {}
        for index, op in enumerate(network.ops):
            for value in op.inputs:
                self._last_read[value] = index
            for value in op.outputs:
                self._made[value] = index
        end = len(network.ops)
        for value in network.outputs:
            self._last_read[value] = end
        self._counts = self._counted(places=end + 2)

    def _counted(self, places: int) -> list[int]:
        """How many activations are alive before each operation."""
        changes = [0] * places
        for value, last in self._last_read.items():
            first = self._made_by(value) + 1
            changes[first] += 1
            changes[last + 1] -= 1
        return list(accumulate(changes))

    def _made_by(self, value: int) -> int:
        """Index of the operation; -1 for the network's input."""
        return self._made.get(value, -1)

    def alone(self, place: int) -> bool:
        """Whether one activation alone was made before operation ``place`` and is read from there on."""
        return self._counts[place] == 1

    def is_alone(self, value: int, place: int) -> bool:
        """Whether ``value`` is the one."""
        last_read = self._last_read.get(value, -1)
        lives = self._made_by(value) < place <= last_read
        return lives and self.alone(place)


class _Finder:
    """Finds the blocks among the modules that were called once."""

    def __init__(self, model: nn.Module, network: TracedNetwork, arguments: _Arguments) -> None:
        self._model = model
        self._network = network
        self._alive = _Alive(network)
        compressible = compressible_layers(model)
        self._layers = [call for call in network.calls if call.module in compressible]
        self._layers.sort(key=lambda call: call.first)
        self._starts = [call.first for call in self._layers]
        self.calls = {call.module: call for call in network.calls}
        executions = Counter(call.module for call in network.calls)
        self.candidates: dict[str, Block] = {}
        for name, given in arguments.of.items():
            # The network itself has no name.
            if not name or executions[name] != 1:
                continue
            call = self.calls[name]
            if self._is_block(call):
                self.candidates[name] = self._block(call, given)

    def within(self, name: str) -> list[str]:
        """The blocks of a module: itself where it holds fewer than two, and is more than what it holds."""
        found = []
        module = self._model.get_submodule(name)
        for child, _ in module.named_children():
            path = f"{name}.{child}" if name else child
            found += self.within(path)
        block = self.candidates.get(name)
        if block is None or len(found) > 1:
            return found
        for inner in found:
            if self.candidates[inner].layers == block.layers:
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
        if len(names) < 2 or not self._is_of_one_tensor(call):
            return False
        # Whatever is called elsewhere too is not this block's to change.
        calls_of_them = [layer for layer in self._layers if layer.module in names]
        if len(calls_of_them) != len(layers):
            return False
        return len(names) <= MOST_SEPARABLE or not self._is_separable(layers)

    def _is_of_one_tensor(self, call: Call) -> bool:
        """Whether one tensor alone is alive before a call, and what it makes alone behind it."""
        alive = self._alive
        if len(call.outputs) != 1 or not alive.alone(call.first):
            return False
        # An input that is given by name is not among these.
        for read in call.inputs:
            if not alive.is_alone(read.value, call.first):
                return False
        made = call.outputs[0].value
        return alive.is_alone(made, call.end)

    def _is_separable(self, layers: Sequence[Call]) -> bool:
        before_the_last = layers[:-1]
        return any(self._alive.alone(layer.end) for layer in before_the_last)

    def _block(self, call: Call, given: _Given) -> Block:
        names = [layer.module for layer in self._inside(call)]
        in_order = tuple(dict.fromkeys(names))
        executed = self._network.ops[call.first : call.end]
        multiplications = 0.0
        elements = 0
        for op in executed:
            elements += op.elements
            if op.dot is not None:
                multiplications += op.dot.multiplications
        args, kwargs = given
        return Block(call.module, in_order, args, kwargs, multiplications, elements)
