"""What follows each layer of a network: its BatchNorm, its activation function, the next layer."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from micronet_cli.layers.rules import compressible_layers
from micronet_cli.torch_internals import BatchNorm, memory_of, operator_name, tree_leaves, writes_to_inputs
from micronet_cli.trace.execution import Execution

POINTWISE = frozenset(
    {"relu", "leaky_relu", "hardtanh", "silu", "gelu", "sigmoid", "hardswish", "hardsigmoid", "tanh", "elu", "mish"}
)
HOMOGENEOUS = frozenset({"relu", "leaky_relu"})  # f(s x) = s f(x) for s > 0
POOLS = frozenset({"max_pool2d_with_indices", "avg_pool2d", "_adaptive_avg_pool2d", "adaptive_max_pool2d"})


@dataclass
class Chain:
    """What alone reads a layer's output, in order.

    Attributes:
        layer: name of the layer.
        norm: name of the BatchNorm that reads it and nothing else does, or None.
        activation: the function that follows, ``y -> f(y)``, or None.
        function: its operator's name.
        after: name of the layer that reads the result channel by channel, through nothing but pooling, or None.
    """

    layer: str
    norm: str | None = None
    activation: Callable[[Tensor], Tensor] | None = None
    function: str | None = None
    after: str | None = None

    @property
    def equalizable(self) -> bool:
        """Whether a channel may be scaled on its way to the layer after."""
        return self.after is not None and (self.function is None or self.function in HOMOGENEOUS)


@torch.no_grad()
def chains(model: nn.Module, input_shape: Sequence[int]) -> dict[str, Chain]:
    """Layer -> its chain, for every layer that is executed exactly once, in the executed order.

    The network is run on one image of zeros; it is left as it was.

    Args:
        model: a network without quantisers of activations.
        input_shape: (channels, height, width).
    """
    parameter = next(model.parameters())
    with _Execution(model) as seen:
        output = model(torch.zeros(1, *input_shape, device=parameter.device, dtype=parameter.dtype))
    seen.read(output)
    return {name: seen.follow(name) for name, times in seen.calls.items() if times == 1 and name in seen.made}


@dataclass(frozen=True)
class _Op:
    """One executed operator: its name, its BatchNorm if it is one, how to run it, what it reads and makes.

    ``made`` is the number of the result.
    """

    kind: str
    norm: str | None
    call: Callable[[Tensor], Tensor]
    source: Tensor
    result: Tensor
    made: int


class _Execution(Execution):
    """One pass in evaluation mode: values, who made them, who reads them.

    Attributes:
        calls: layer or BatchNorm -> how often it was executed.
        made: layer -> number of the value that it made.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.calls: Counter[str] = Counter()
        self.made: dict[str, int] = {}
        self._values: dict[int, int] = {}  # id of a tensor -> its value
        self._alive: list[Tensor] = []  # tensors are told apart by id: none may be freed meanwhile
        self._sharing: defaultdict[int, list[int]] = defaultdict(list)  # memory -> ids
        self._readers: defaultdict[int, list[Any]] = defaultdict(list)
        self._layer: str | None = None
        self._norm: str | None = None

    def follow(self, name: str) -> Chain:
        """The chain of a layer."""
        chain, value, pooled = Chain(name), self.made[name], False
        layer = self.model.get_submodule(name)
        while len(readers := self._readers[value]) == 1 and isinstance(reader := readers[0], _Op):
            plain = not pooled and chain.function is None
            if reader.norm is not None and plain and chain.norm is None and self._fits(reader, layer):
                chain.norm = reader.norm
            elif reader.kind in POINTWISE and plain:
                chain.function, chain.activation = reader.kind, reader.call
            elif not isinstance(layer, nn.Linear) and _keeps_channels(reader):
                pooled = True
            else:
                return chain
            value = reader.made
        if len(readers) == 1 and isinstance(readers[0], str) and self._reads_channels(readers[0], layer, value):
            chain.after = readers[0]
        return chain

    def _fits(self, op: "_Op", layer: nn.Module) -> bool:
        """Whether a BatchNorm, executed once, has the layer's outputs for channels."""
        return self.calls[op.norm or ""] == 1 and (not isinstance(layer, nn.Linear) or op.source.dim() == 2)

    def _reads_channels(self, name: str, layer: nn.Module, value: int) -> bool:
        """Whether a layer, executed once, reads the channels of ``layer`` as its own inputs."""
        reader = self.model.get_submodule(name)
        if isinstance(reader, nn.Linear) and not isinstance(layer, nn.Linear) and self._alive[value].dim() != 2:
            return False
        return self.calls[name] == 1 and reader.weight.shape[1] * getattr(reader, "groups", 1) == len(layer.weight)

    def read(self, tree: Any) -> None:
        """Something outside reads these values."""
        for leaf in tree_leaves(tree):
            if isinstance(leaf, Tensor) and id(leaf) in self._values:
                self._readers[self._values[id(leaf)]].append(None)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Run an operator and note what it reads and makes; inside a layer only the whole counts."""
        kwargs = kwargs or {}
        read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and id(leaf) in self._values]
        result = func(*args, **kwargs)
        if self._layer is not None or not read:
            return result
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        sources = dict.fromkeys(self._values[id(leaf)] for leaf in read)
        if writes_to_inputs(func):
            # Other views of the memory see the change: no chain may go through them.
            for other in self._sharing[memory_of(read[0])]:
                if (value := self._values[other]) not in sources:
                    self._readers[value].append(None)
        kind = operator_name(func).rstrip("_")
        shapes = [leaf.detach() for leaf in (read[0], *outputs[:1])]
        makes = [self._new_value(out) for out in outputs]
        unary = len(sources) == 1 and makes
        norm = None
        if "batch_norm" in kind:
            norm, self._norm = self._norm, None
        op = _Op(kind, norm, _Call(kind, args[1:], kwargs), shapes[0], shapes[-1], makes[0]) if unary else None
        for value in sources:
            self._readers[value].append(op)
        return result

    def _new_value(self, tensor: Tensor) -> int:
        self._values[id(tensor)] = number = len(self._alive)
        self._alive.append(tensor)
        self._sharing[memory_of(tensor)].append(id(tensor))
        return number

    def hooks(self) -> Iterator[RemovableHandle]:
        """Watch layers and BatchNorms."""
        for name, layer in compressible_layers(self.model).items():
            yield layer.register_forward_pre_hook(self._enter(name))
            yield layer.register_forward_hook(self._leave(name))
        for name, module in self.model.named_modules():
            if isinstance(module, BatchNorm) and module.running_mean is not None:
                yield module.register_forward_pre_hook(self._normalise(name))

    def _enter(self, name: str) -> Any:
        def hook(layer: nn.Module, inputs: tuple) -> None:
            self._layer = name
            for leaf in inputs:
                if isinstance(leaf, Tensor) and id(leaf) in self._values:
                    self._readers[self._values[id(leaf)]].append(name)

        return hook

    def _leave(self, name: str) -> Any:
        def hook(layer: nn.Module, inputs: tuple, output: Tensor) -> None:
            self._layer = None
            self.calls[name] += 1
            self.made[name] = self._new_value(output)

        return hook

    def _normalise(self, name: str) -> Any:
        def hook(norm: nn.Module, inputs: tuple) -> None:
            self.calls[name] += 1
            self._norm = name

        return hook


@dataclass(frozen=True)
class _Call:
    """A unary operator with its other arguments, out of place."""

    kind: str
    arguments: tuple
    options: dict

    def __call__(self, x: Tensor) -> Tensor:
        return getattr(torch.ops.aten, self.kind)(x, *self.arguments, **self.options)


def _keeps_channels(op: _Op) -> bool:
    """Whether an operator maps channels (dimension 1) one by one, and c x to c f(x)."""
    if op.kind in POOLS:
        return True
    if op.kind == "mean" and isinstance(op.call, _Call) and op.call.arguments and op.call.arguments[0]:
        return not {dim % op.source.dim() for dim in op.call.arguments[0]} & {0, 1}
    return op.kind in ("view", "_unsafe_view", "reshape", "squeeze") and op.result.shape == op.source.shape[:2]
