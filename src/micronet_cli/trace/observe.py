"""Run a model once on a meta tensor and write down what it executes: operations, values and calls of modules."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
from micronet_cli.trace.recorder import Recorder
from micronet_cli.trace.records import Call, Read, TracedNetwork

PARAMETRIZED = ".parametrizations."


def observe(model: nn.Module, input_shape: Sequence[int]) -> TracedNetwork:
    """What ``model`` executes in evaluation mode on one example, every BatchNorm included; it is left as it was.

    Layers that read no image, as those that make a table of positions from a buffer, are followed as well.

    Args:
        model: any network.
        input_shape: (channels, height, width).

    Raises:
        ValueError: the network reads the value of a tensor in Python.
    """
    return record(uncompiled(model), tuple(input_shape), constants=True)[1]


def record(model: nn.Module, input_shape: tuple[int, ...], constants: bool = False) -> tuple[Recorder, TracedNetwork]:
    """One forward pass under a recorder: it, and what it wrote down.

    What layers make of constants is done before inference; with ``constants`` it is recorded as what depends on the
    image is.
    """
    recorder = Recorder()
    persistent = set(model.state_dict(keep_vars=True))
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if name in persistent:
            recorder.add_stored(tensor, name, name.rpartition(".")[0])
    example = torch.empty(1, *input_shape, device="meta", dtype=_float_type(model))
    watch = _ModuleWatch(model, recorder, constants)
    with _evaluation(model), torch.random.fork_rng(devices=[]), torch.no_grad():
        recorder.add_input(example)
        with watch.listening(), recorder:
            returned = tree_leaves(model(example))
    values = [recorder.activation(leaf) for leaf in returned if isinstance(leaf, Tensor)]
    network = TracedNetwork(
        ops=tuple(recorder.ops),
        values=tuple(recorder.values),
        stored=tuple(recorder.stored),
        quantizers={},
        input_shape=input_shape,
        free_multiplications=recorder.free_multiplications,
        ends=watch.ends,
        outputs=tuple(value for value in values if value is not None),
        calls=tuple(watch.calls),
    )
    return recorder, network


def _float_type(model: nn.Module) -> torch.dtype:
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


@contextmanager
def _evaluation(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


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
        self._begun: list[tuple[int, tuple[Read, ...]]] = []
        self._replaced: dict[nn.RNNBase, list[Tensor]] = {}

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Watch every module that is executed inside the block."""
        handles = [register_module_forward_pre_hook(self._enter), register_module_forward_hook(self._leave)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            for module, weights in self._replaced.items():
                set_flat_weights(module, weights)

    def _enter(self, module: nn.Module, inputs: tuple) -> None:
        recorder = self.recorder
        recorder.stack.append(self._names.get(module, recorder.stack[-1]))
        if self.constants and isinstance(module, COMPRESSIBLE):
            self._follow(inputs)
        self._begun.append((len(recorder.ops), recorder.reads(inputs)))
        if isinstance(module, FakeQuantize | Rescale):
            recorder.inside += 1
        if isinstance(module, nn.RNNBase):
            # Its kernel refuses to mix devices.
            weights = flat_weights(module)
            self._replaced[module] = weights
            set_flat_weights(module, [recorder.stand_in(weight) for weight in weights])

    def _follow(self, inputs: tuple) -> None:
        """Take what a layer reads for an activation."""
        for tensor in inputs:
            if isinstance(tensor, Tensor) and self.recorder.activation(tensor) is None:
                self.recorder.add_input(tensor)

    def _leave(self, module: nn.Module, inputs: tuple, output: Any) -> None:
        recorder = self.recorder
        name = recorder.stack.pop()
        self.ends[name] = len(recorder.ops)
        first, inputs_read = self._begun.pop()
        if module in self._names:
            call = Call(name, first, len(recorder.ops), inputs_read, recorder.reads(output))
            self.calls.append(call)
        if isinstance(module, FakeQuantize | Rescale):
            recorder.inside -= 1
        if isinstance(module, FakeQuantize):
            recorder.quantized(inputs[0], output, name)
        elif isinstance(module, Rescale):
            bias = None if module.bias is None else module.bias.stored
            recorder.rescaled(inputs[0], name.rpartition(".")[0], bias)
        elif isinstance(module, nn.RNNBase):
            set_flat_weights(module, self._replaced.pop(module))
        elif isinstance(module, ParametrizationList) and isinstance(output, Tensor):
            layer, _, tensor = name.partition(PARAMETRIZED)
            derived = not all(isinstance(part, EffectiveWeight) for part in module)
            recorder.rename_stored(output, f"{layer}.{tensor}", layer, derived)
