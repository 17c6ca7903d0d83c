"""Run a model once on a meta tensor and write down what it executes: operations, values and calls of modules."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.utils.parametrize import ParametrizationList
from torch.overrides import TorchFunctionMode

from micronet_cli.layers.effective_weight import EffectiveWeight
from micronet_cli.layers.fake_quantize import FakeQuantize
from micronet_cli.layers.integer import Rescale
from micronet_cli.layers.rules import COMPRESSIBLE
from micronet_cli.torch_internals import flat_weights, set_flat_weights, tree_leaves, uncompiled
from micronet_cli.trace.attention import OTHER_DEVICES, AttentionOnMeta
from micronet_cli.trace.layouts import Read
from micronet_cli.trace.recorder import Recorder
from micronet_cli.trace.records import Call, TracedNetwork

PARAMETRIZED = ".parametrizations."
Watch = Callable[[Recorder], TorchFunctionMode]
_WITH_OWN_ARITHMETIC = (FakeQuantize, Rescale)  # what they execute is not counted


def observe(model: nn.Module, input_shape: Sequence[int]) -> TracedNetwork:
    """What ``model`` executes in evaluation mode on one example, every BatchNorm included; it is left as it was.

    Layers that read no image, such as those that make a table of positions from a buffer, are followed as well.

    Args:
        model: any network.
        input_shape: (channels, height, width).

    Raises:
        ValueError: the network reads the value of a tensor in Python.
    """
    _, network = record(uncompiled(model), tuple(input_shape), every_layer=True)
    return network


def record(
    model: nn.Module,
    input_shape: tuple[int, ...],
    every_layer: bool = False,
    watches: Sequence[Watch] = (),
) -> tuple[Recorder, TracedNetwork]:
    """One forward pass under a recorder: it, and what it wrote down.

    What layers make of constants is done before inference; with ``every_layer`` it is recorded just as what depends on
    the image, and so is every call of a module. Each of ``watches`` makes what sees the calls of functions.
    """
    try:
        return _record(model, input_shape, every_layer, watches)
    except RuntimeError as error:
        if OTHER_DEVICES not in str(error):
            raise
    return _record(model, input_shape, every_layer, [_attention_on_meta, *watches])


def _attention_on_meta(recorder: Recorder) -> TorchFunctionMode:
    return AttentionOnMeta(recorder.known)


def _record(
    model: nn.Module,
    input_shape: tuple[int, ...],
    every_layer: bool,
    watches: Sequence[Watch],
) -> tuple[Recorder, TracedNetwork]:
    recorder = Recorder(_device(model))
    _store_parameters(model, recorder)
    watch = _ModuleWatch(model, recorder, every_layer)
    example = torch.empty(1, *input_shape, device="meta", dtype=_float_type(model))
    recorder.known.add_value(example, None)
    with ExitStack() as stack:
        stack.enter_context(_evaluation(model))
        stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.enter_context(torch.no_grad())
        stack.callback(recorder.restore)
        stack.enter_context(watch.listening())
        for watch_of in watches:
            stack.enter_context(watch_of(recorder))
        stack.enter_context(recorder)
        returned = model(example)
    network = TracedNetwork(
        ops=tuple(recorder.ops),
        values=tuple(recorder.known.values),
        stored=tuple(recorder.known.stored),
        quantizers={},
        input_shape=input_shape,
        free_multiplications=recorder.free_multiplications,
        ends=watch.ends,
        outputs=_returned_values(returned, recorder),
        calls=tuple(watch.calls),
    )
    return recorder, network


def _returned_values(returned: Any, recorder: Recorder) -> tuple[int, ...]:
    """The values among what the network returns, in any structure."""
    values = []
    for leaf in tree_leaves(returned):
        if not isinstance(leaf, Tensor):
            continue
        value = recorder.known.activation(leaf)
        if value is not None:
            values.append(value)
    return tuple(values)


def _store_parameters(model: nn.Module, recorder: Recorder) -> None:
    """Parameters and buffers are stored, but for buffers that no checkpoint holds: tables that the code makes."""
    persistent = set(model.state_dict(keep_vars=True))
    parameters = model.named_parameters()
    buffers = model.named_buffers()
    for name, tensor in itertools.chain(parameters, buffers):
        if name not in persistent:
            continue
        layer, _, _ = name.rpartition(".")
        recorder.known.add_stored(tensor, name, layer)


def _device(model: nn.Module) -> torch.device:
    """Where the parameters are; meta for a network without any."""
    for parameter in model.parameters():
        return parameter.device
    return torch.device("meta")


def _float_type(model: nn.Module) -> torch.dtype:
    for parameter in model.parameters():
        if parameter.is_floating_point():
            return parameter.dtype
    return torch.float32


@contextmanager
def _evaluation(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; modes and the modules' caches, such as LeViT's biases, are as before behind the block."""
    modes = [(module, module.training) for module in model.modules()]
    caches = [(cache, dict(cache)) for cache in _caches(model)]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for cache, contents in caches:
            cache.clear()
            cache.update(contents)


def _caches(model: nn.Module) -> Iterator[dict]:
    """The dictionaries that modules keep as plain attributes."""
    for module in model.modules():
        for name, value in vars(module).items():
            if isinstance(value, dict) and not name.startswith("_"):
                yield value


@dataclass(frozen=True)
class _Begun:
    """A module that is being executed: the operations before it, and what went in."""

    first: int
    inputs: tuple[Read, ...]


class _ModuleWatch:
    """Keeps the recorder's module stack, and tells it about quantisers and parametrised weights.

    Attributes:
        ends: module name -> number of operations executed when it last returned.
        calls: every execution of a module that has ended, where ``every_layer`` is followed.
    """

    def __init__(self, model: nn.Module, recorder: Recorder, every_layer: bool) -> None:
        self.recorder = recorder
        self.every_layer = every_layer
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
        if self.every_layer:
            self._begin_call(module, inputs)
        if isinstance(module, _WITH_OWN_ARITHMETIC):
            recorder.inside += 1
        if isinstance(module, nn.RNNBase):
            self._replace_weights(module)

    def _leave(self, module: nn.Module, inputs: tuple, output: Any) -> None:
        recorder = self.recorder
        name = recorder.stack.pop()
        self.ends[name] = len(recorder.ops)
        if self.every_layer:
            self._end_call(module, name, output)
        if isinstance(module, FakeQuantize):
            recorder.inside -= 1
            recorder.quantized(inputs[0], output, name)
        elif isinstance(module, Rescale):
            recorder.inside -= 1
            layer, _, _ = name.rpartition(".")
            bias = None
            if module.bias is not None:
                bias = module.bias.stored
            recorder.rescaled(inputs[0], layer, bias)
        elif isinstance(module, nn.RNNBase):
            weights = self._replaced.pop(module)
            set_flat_weights(module, weights)
        elif isinstance(module, ParametrizationList) and isinstance(output, Tensor):
            self._name_parametrized(module, name, output)

    def _begin_call(self, module: nn.Module, inputs: tuple) -> None:
        recorder = self.recorder
        if isinstance(module, COMPRESSIBLE):
            self._follow(inputs)
        first = len(recorder.ops)
        reads = recorder.known.reads(inputs)
        self._begun.append(_Begun(first, reads))

    def _end_call(self, module: nn.Module, name: str, output: Any) -> None:
        recorder = self.recorder
        begun = self._begun.pop()
        if module not in self._names:
            return
        end = len(recorder.ops)
        outputs = recorder.known.reads(output)
        call = Call(name, begun.first, end, begun.inputs, outputs)
        self.calls.append(call)

    def _follow(self, inputs: tuple) -> None:
        """Count what a layer reads as an activation."""
        known = self.recorder.known
        for tensor in inputs:
            if isinstance(tensor, Tensor) and not known.is_activation(tensor):
                known.add_value(tensor, None)

    def _replace_weights(self, module: nn.RNNBase) -> None:
        """A recurrent kernel refuses to mix devices: it gets meta tensors."""
        known = self.recorder.known
        weights = flat_weights(module)
        self._replaced[module] = weights
        stand_ins = [known.stand_in(weight) for weight in weights]
        set_flat_weights(module, stand_ins)

    def _name_parametrized(self, module: ParametrizationList, name: str, output: Tensor) -> None:
        """What parametrisations make of a tensor has the tensor's name."""
        layer, _, tensor = name.partition(PARAMETRIZED)
        derived = False
        for part in module:
            if not isinstance(part, EffectiveWeight) or part.standardization is not None:
                derived = True
        self.recorder.known.rename_stored(output, f"{layer}.{tensor}", layer, derived)
