"""Run a model once on a meta tensor and write down what it executes: operations, values and calls of modules."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.utils.parametrize import ParametrizationList

from micronet_cli.layers.effective_weight import EffectiveWeight
from micronet_cli.layers.fake_quantize import FakeQuantize
from micronet_cli.layers.integer import Rescale
from micronet_cli.layers.rules import COMPRESSIBLE
from micronet_cli.torch_internals import flat_weights, set_flat_weights, tree_leaves, uncompiled
from micronet_cli.trace.layouts import Read
from micronet_cli.trace.recorder import Recorder
from micronet_cli.trace.records import Call, TracedNetwork

PARAMETRIZED = ".parametrizations."


def observe(model: nn.Module, input_shape: Sequence[int]) -> TracedNetwork:
    """What ``model`` executes in evaluation mode on one example, every BatchNorm included; it is left as it was.

    Layers that read no image, such as those that make a table of positions from a buffer, are followed as well.

    Args:
        model: any network.
        input_shape: (channels, height, width).

    Raises:
        ValueError: the network reads the value of a tensor in Python.
    """
    _, network = record(uncompiled(model), tuple(input_shape), constants=True)
    return network


def record(model: nn.Module, input_shape: tuple[int, ...], constants: bool = False) -> tuple[Recorder, TracedNetwork]:
    """One forward pass under a recorder: it, and what it wrote down.

    What layers make of constants is done before inference; with ``constants`` it is recorded just as what depends on
    the image.
    """
    recorder = Recorder()
    _store_parameters(model, recorder)
    watch = _ModuleWatch(model, recorder, constants)
    example = torch.empty(1, *input_shape, device="meta", dtype=_float_type(model))
    recorder.known.add_value(example, None)
    with _evaluation(model), torch.random.fork_rng(devices=[]), torch.no_grad(), watch.listening(), recorder:
        returned = tree_leaves(model(example))
    outputs = []
    for leaf in returned:
        value = recorder.known.activation(leaf) if isinstance(leaf, Tensor) else None
        if value is not None:
            outputs.append(value)
    network = TracedNetwork(
        ops=tuple(recorder.ops),
        values=tuple(recorder.known.values),
        stored=tuple(recorder.known.stored),
        quantizers={},
        input_shape=input_shape,
        free_multiplications=recorder.free_multiplications,
        ends=watch.ends,
        outputs=tuple(outputs),
        calls=tuple(watch.calls),
    )
    return recorder, network


def _store_parameters(model: nn.Module, recorder: Recorder) -> None:
    """Parameters and buffers are stored, but for buffers that no checkpoint holds: tables that the code makes."""
    persistent = set(model.state_dict(keep_vars=True))
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if name in persistent:
            layer, _, _ = name.rpartition(".")
            recorder.known.add_stored(tensor, name, layer)


def _float_type(model: nn.Module) -> torch.dtype:
    for parameter in model.parameters():
        if parameter.is_floating_point():
            return parameter.dtype
    return torch.float32


@contextmanager
def _evaluation(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@dataclass(frozen=True)
class _Begun:
    """A module that is being executed: the operations before it, and what went in."""

    first: int
    inputs: tuple[Read, ...]


class _ModuleWatch:
    """Keeps the recorder's module stack, and tells it about quantisers and parametrised weights.

    Attributes:
        ends: module name -> number of operations executed when it last returned.
        calls: every execution of a module that has ended.
    """

    def __init__(self, model: nn.Module, recorder: Recorder, constants: bool) -> None:
        self.recorder = recorder
        self.constants = constants
        self.ends: dict[str, int] = {}
        self.calls: list[Call] = []
        self._names = {module: name for name, module in model.named_modules()}
        self._begun: list[_Begun] = []
        self._replaced: dict[nn.RNNBase, list[Tensor]] = {}

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Watch every module that is executed inside the block."""
        entering = register_module_forward_pre_hook(self._enter)
        leaving = register_module_forward_hook(self._leave)
        try:
            yield
        finally:
            entering.remove()
            leaving.remove()
            for module, weights in self._replaced.items():
                set_flat_weights(module, weights)

    def _enter(self, module: nn.Module, inputs: tuple) -> None:
        recorder = self.recorder
        # A module that is not the model's (made during the forward) counts as part of the one that runs it.
        name = self._names.get(module, recorder.stack[-1])
        recorder.stack.append(name)
        if self.constants and isinstance(module, COMPRESSIBLE):
            self._follow(inputs)
        self._begun.append(_Begun(len(recorder.ops), recorder.known.reads(inputs)))
        if isinstance(module, FakeQuantize | Rescale):
            recorder.inside += 1
        if isinstance(module, nn.RNNBase):
            # Its kernel refuses to mix devices.
            weights = flat_weights(module)
            self._replaced[module] = weights
            set_flat_weights(module, [recorder.known.stand_in(weight) for weight in weights])

    def _follow(self, inputs: tuple) -> None:
        """Count what a layer reads as an activation."""
        known = self.recorder.known
        for tensor in inputs:
            if isinstance(tensor, Tensor) and known.activation(tensor) is None:
                known.add_value(tensor, None)

    def _leave(self, module: nn.Module, inputs: tuple, output: Any) -> None:
        recorder = self.recorder
        name = recorder.stack.pop()
        end = len(recorder.ops)
        self.ends[name] = end
        begun = self._begun.pop()
        if module in self._names:
            outputs = recorder.known.reads(output)
            self.calls.append(Call(name, begun.first, end, begun.inputs, outputs))
        if isinstance(module, FakeQuantize | Rescale):
            recorder.inside -= 1
        if isinstance(module, FakeQuantize):
            recorder.quantized(inputs[0], output, name)
        elif isinstance(module, Rescale):
            layer, _, _ = name.rpartition(".")
            bias = None if module.bias is None else module.bias.stored
            recorder.rescaled(inputs[0], layer, bias)
        elif isinstance(module, nn.RNNBase):
            set_flat_weights(module, self._replaced.pop(module))
        elif isinstance(module, ParametrizationList) and isinstance(output, Tensor):
            layer, _, tensor = name.partition(PARAMETRIZED)
            derived = not all(isinstance(part, EffectiveWeight) for part in module)
            recorder.known.rename_stored(output, f"{layer}.{tensor}", layer, derived)
