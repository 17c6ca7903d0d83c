"""What follows each layer of a network: its BatchNorm, its activation function, the next layer."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from micronet_cli.layers.rules import compressible_layers, shared_parameters
from micronet_cli.torch_internals import BatchNorm
from micronet_cli.trace.batch_norm import NORM_CHANNELS
from micronet_cli.trace.channels import RELAYS, Channels, Readers, through
from micronet_cli.trace.kinds import BATCH_NORMS
from micronet_cli.trace.observe import observe
from micronet_cli.trace.own_weights import own_weights
from micronet_cli.trace.records import Call, Op, TracedNetwork

# Activation functions, as they are recorded -> their operators.
FUNCTIONS = {
    "relu": "relu",
    "leaky_relu": "leaky_relu",
    "hardtanh": "hardtanh",
    "silu": "silu",
    "gelu": "gelu",
    "gelu_tanh": "gelu",
    "sigmoid": "sigmoid",
    "hardswish": "hardswish",
    "hardsigmoid": "hardsigmoid",
    "tanh": "tanh",
    "elu": "elu",
    "mish": "mish",
}
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
        shiftable: whether adding c to the channel everywhere adds c to what the layer after reads, but for its padding.
        scalable: whether what makes a channel, the BatchNorm's weight or else the layer's, can be multiplied by s > 0
            to multiply the channel by it, and the weight that reads the channel divided by it.
    """

    layer: str
    norm: str | None = None
    activation: Callable[[Tensor], Tensor] | None = None
    function: str | None = None
    after: str | None = None
    shiftable: bool = True
    scalable: bool = False

    @property
    def equalizable(self) -> bool:
        """Whether a channel may be scaled on its way to the layer after."""
        if self.after is None:
            return False
        homogeneous = self.function is None or self.function in HOMOGENEOUS
        return homogeneous and self.scalable


@dataclass(frozen=True)
class Activation:
    """An activation function with its other arguments, out of place."""

    operator: str
    arguments: tuple[Any, ...]
    options: Mapping[str, Any]

    def __call__(self, x: Tensor) -> Tensor:
        """Shape unchanged."""
        operator = getattr(torch.ops.aten, self.operator)
        return operator(x, *self.arguments, **self.options)


def chains(model: nn.Module, input_shape: Sequence[int]) -> dict[str, Chain]:
    """Layer -> its chain, for every layer that is executed exactly once, in the executed order.

    The network is left as it was.

    Args:
        model: a network without quantisers of activations.
        input_shape: (channels, height, width).
    """
    follower = _Follower(model, observe(model, input_shape))
    found = {}
    for call in follower.layer_calls:
        if follower.runs_once(call.module):
            found[call.module] = follower.chain(call)
    return found


class _Follower:
    """Follows the channels of a layer's output from reader to reader."""

    def __init__(self, model: nn.Module, network: TracedNetwork) -> None:
        self.model = model
        self.network = network
        self.readers = Readers(network)
        layers = compressible_layers(model)
        self.layer_calls = []
        for call in network.calls:
            if call.module in layers and len(call.outputs) == 1:
                self.layer_calls.append(call)
        self._executions = Counter(call.module for call in network.calls)
        self._own_weights = own_weights(network, model)
        self._shared = shared_parameters(model)

    def runs_once(self, name: str) -> bool:
        """Whether a module is executed exactly once."""
        return self._executions[name] == 1

    def chain(self, call: Call) -> Chain:
        """The chain of the layer that was called."""
        chain = Chain(call.module)
        made = call.outputs[0]
        dim = self._channel_dim(call.module, len(made.layout.shape))
        channels = Channels(made.value, made.layout, dim)
        pooled = False
        while True:
            index = self.readers.sole(channels.value)
            if index is None or self._layer_at(index) is not None:
                break
            op = self.network.ops[index]
            read_dim = channels.dim_in(op.reads[0])
            if read_dim is None:
                return chain
            behind: Channels | None = through(self.network, op, read_dim)
            # Behind a pool, a norm or a function is no longer the layer's own.
            taken = not pooled and self._take(op, read_dim, chain)
            if not taken and op.kind not in RELAYS:
                pooled = True
                # It may have zeros in its windows, which nothing is added to.
                if op.kind == "avg_pool2d":
                    chain.shiftable = False
                behind = self._behind_pool(op, read_dim)
            if behind is None:
                return chain
            channels = behind
        chain.after = self._layer_after(channels)
        chain.scalable = self._scalable(chain)
        return chain

    def _take(self, op: Op, dim: int, chain: Chain) -> bool:
        """Add a BatchNorm or an activation function to the chain; whether it is one that the chain can take."""
        if chain.function is not None:
            return False
        if op.kind in FUNCTIONS:
            chain.function = FUNCTIONS[op.kind]
            chain.activation = Activation(chain.function, op.arguments, op.options)
            return True
        if op.kind not in BATCH_NORMS or chain.norm is not None:
            return False
        if not self._fits(op, dim):
            return False
        chain.norm = op.layer
        return True

    def _channel_dim(self, layer: str, dims: int) -> int:
        module = self.model.get_submodule(layer)
        if isinstance(module, nn.Linear):
            return dims - 1
        return 1

    def _fits(self, op: Op, dim: int) -> bool:
        """Whether a BatchNorm, a module of its own executed once, takes the channels for its own."""
        norm = self.model.get_submodule(op.layer)
        if dim != NORM_CHANNELS or not isinstance(norm, BatchNorm):
            return False
        parameters = norm.parameters(recurse=False)
        has_own_parameters = self._shared.isdisjoint(parameters)
        return has_own_parameters and self.runs_once(op.layer)

    def _behind_pool(self, op: Op, dim: int) -> Channels | None:
        """The channels behind an operation that maps each on its own, and c x to c f(x); None behind any other."""
        read = op.reads[0].layout.shape
        if op.kind in POOLS and dim == 1 and len(read) == 4:
            return through(self.network, op, dim)
        if op.kind != "mean" or not op.arguments or not op.arguments[0]:
            return None
        averaged = {number % len(read) for number in op.arguments[0]}
        if averaged & {0, dim}:
            return None
        keepdim = len(op.arguments) > 1 and op.arguments[1]
        if keepdim:
            return through(self.network, op, dim)
        gone_before = [number for number in averaged if number < dim]
        return through(self.network, op, dim - len(gone_before))

    def _layer_at(self, index: int) -> Call | None:
        """The call of a layer that executed an operation."""
        for call in self.layer_calls:
            if call.first <= index < call.end:
                return call
        return None

    def _layer_after(self, channels: Channels) -> str | None:
        """The layer, executed once, that alone reads the channels, as its own inputs."""
        call = self._only_call(channels.value)
        if call is None or not self.runs_once(call.module):
            return None
        if len(call.inputs) != 1 or call.inputs[0].value != channels.value:
            return None
        read = call.inputs[0]
        layer = self.model.get_submodule(call.module)
        inputs = layer.weight.shape[1] * getattr(layer, "groups", 1)
        input_dim = self._channel_dim(call.module, len(read.layout.shape))
        if channels.count != inputs or channels.dim_in(read) != input_dim:
            return None
        return call.module

    def _only_call(self, value: int) -> Call | None:
        """The call of a layer that executed everything that reads the value."""
        only = None
        for index in self.readers.all(value) or []:
            call = self._layer_at(index)
            if call is None:
                return None
            if only is not None and call is not only:
                return None
            only = call
        return only

    def _scalable(self, chain: Chain) -> bool:
        if chain.after not in self._own_weights:
            return False
        if chain.norm is None:
            return chain.layer in self._own_weights
        norm = self.model.get_submodule(chain.norm)
        return bool(norm.affine)
