"""Run a model once on a meta tensor and write down what it executes: operations, values and calls of modules."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from micronet_cli.torch_internals import tree_leaves, uncompiled
from micronet_cli.trace.attention import OTHER_DEVICES, AttentionOnMeta
from micronet_cli.trace.module_watch import ModuleWatch
from micronet_cli.trace.recorder import Recorder
from micronet_cli.trace.records import TracedNetwork

Watch = Callable[[Recorder], TorchFunctionMode]


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
    watch = ModuleWatch(model, recorder, every_layer)
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
        free_multiplications=recorder.constants.free_multiplications,
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
