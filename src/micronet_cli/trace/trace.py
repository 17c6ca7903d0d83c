"""Run a model once on a meta tensor: the executed operations, with the module, the bits and the weight behind each."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.utils.parametrize import ParametrizationList

from micronet_cli.layers.effective_weight import effective_weight
from micronet_cli.layers.fake_quantize import ActivationFakeQuantize, FakeQuantize
from micronet_cli.layers.integer import Rescale
from micronet_cli.scoring.charges import Charge
from micronet_cli.scoring.fold import fold_batch_norms
from micronet_cli.scoring.rules import Rules
from micronet_cli.torch_internals import flat_weights, memory_of, set_flat_weights, tree_leaves, uncompiled, version_of
from micronet_cli.trace.products import Shape
from micronet_cli.trace.recorder import Recorder
from micronet_cli.trace.records import ExecutedQuantizer, TracedNetwork
from micronet_cli.trace.weights import WeightReader

_PARAMETRIZED = ".parametrizations."


class Trace:
    """A model's executed structure, and the way back to what its weights and quantisers are now.

    ``read`` re-reads bits and zeros only; it traces anew when modules were added or taken away. Weights changed behind
    autograd's back (``weight.data``) are not noticed: make a new trace after such a change.
    """

    def __init__(self, model: nn.Module, input_shape: Sequence[int]) -> None:
        # A compiled model hides the one whose operations are counted.
        self.model, self.input_shape = uncompiled(model), tuple(input_shape)
        self._trace()

    def _trace(self) -> None:
        self._dense: tuple[Rules, list[Charge]] | None = None
        self._modules = dict(self.model.named_modules())
        recorder, ends, outputs = record(self.model, self.input_shape)
        recorded = (tuple(recorder.ops), tuple(recorder.values), tuple(recorder.stored))
        network = TracedNetwork(*recorded, {}, self.input_shape, recorder.free_multiplications, ends, outputs)
        self._network = fold_batch_norms(network)
        self._shapes = recorder.quantized_shapes
        products = [p for _, p in sorted(recorder.products.items())]
        dots = [(i, op.dot) for i, op in enumerate(self._network.ops) if op.dot]
        self._readers = [
            (index, self._reader(shape, dot.weight, recorder.sources[dot.weight]))
            for (index, dot), shape in zip(dots, products, strict=True)
            if dot.weight is not None
        ]
        owners = {memory_of(tensor) for tensor in self._tensors()}
        self._derived = any(r.operand is not None and memory_of(r.operand) not in owners for _, r in self._readers)
        self._signature = self._structure()

    def _tensors(self) -> list[Tensor]:
        return [*self.model.parameters(), *self.model.buffers()]

    def _structure(self) -> tuple:
        """What the trace depends on: the modules, and all values where weights are computed from them."""
        versions = [version_of(tensor) for tensor in self._tensors()] if self._derived else []
        return (*(id(module) for module in self.model.modules()), *versions)

    def _reader(self, shape: Shape, weight: int, source: Tensor | None) -> WeightReader:
        """Reads a layer's effective weight where the operand is a view of it, else the operand itself."""
        assert source is not None
        layer = self._modules.get(self._network.stored[weight].name.removesuffix(".weight"))
        effective = layer is not None and effective_weight(layer) is not None
        direct = effective and memory_of(shape.weight) == memory_of(source)
        return WeightReader(shape, source, layer if direct else None)

    def read(self, codes: bool = False, block: Sequence[int] | None = None) -> TracedNetwork:
        """The network with the bits and zeros of this moment.

        Args:
            codes: integer ranges of weights and inputs too, for accumulator widths.
            block: count kept blocks of this shape in every weight.
        """
        if self._structure() != self._signature:
            self._trace()
        ops, stored = list(self._network.ops), list(self._network.stored)
        for index, reader in self._readers:
            op = ops[index]
            assert op.dot is not None
            assert op.dot.weight is not None
            found = reader.read(codes, tuple(block) if block else None)
            dot, stored[op.dot.weight] = found.apply(op.dot, stored[op.dot.weight])
            ops[index] = replace(op, dot=dot)
        quantizers = {name: self._quantizer(name, shape, codes) for name, shape in self._shapes.items()}
        return replace(self._network, ops=tuple(ops), stored=tuple(stored), quantizers=quantizers)

    def dense_charges(self, rules: Rules) -> list[Charge]:
        """What the dense float network costs; counted once for the same rules."""
        if self._dense is None or self._dense[0] is not rules:
            plain = replace(rules, weight_sparsity=None, freebie=False)
            self._dense = (rules, plain.charges(self._network.dense()))
        return self._dense[1]

    def _quantizer(self, name: str, shape: torch.Size, codes: bool) -> ExecutedQuantizer:
        module = self._modules[name]
        assert isinstance(module, FakeQuantize)
        layer = name.partition(_PARAMETRIZED)[0] if _PARAMETRIZED in name else name.rpartition(".")[0]
        limits = None
        if codes and isinstance(module, ActivationFakeQuantize):
            zero_point = int(module.qparams()[1])
            limits = (zero_point, zero_point + module.levels - 1)
        return ExecutedQuantizer(name, layer, module.code_bits, module.qparams_bits(shape), limits)


def trace(model: nn.Module, input_shape: Sequence[int]) -> Trace:
    """Trace ``model`` in evaluation mode on one example of ``input_shape``; the model is left as it was."""
    return Trace(model, input_shape)


def record(model: nn.Module, input_shape: Sequence[int]) -> tuple[Recorder, dict[str, int], tuple[int, ...]]:
    """One forward pass under a recorder: it, and the ``ends`` and ``outputs`` of ``TracedNetwork``."""
    recorder = Recorder()
    persistent = set(model.state_dict(keep_vars=True))
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if name in persistent:
            recorder.add_stored(tensor, name, name.rpartition(".")[0])
    example = torch.empty(1, *input_shape, device="meta", dtype=_float_type(model))
    with _evaluation(model), torch.random.fork_rng(devices=[]), torch.no_grad():
        recorder.add_input(example)
        with _watched(model, recorder) as ends, recorder:
            returned = tree_leaves(model(example))
    values = [recorder.activation(leaf) for leaf in returned if isinstance(leaf, Tensor)]
    return recorder, ends, tuple(value for value in values if value is not None)


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


@contextmanager
def _watched(model: nn.Module, recorder: Recorder) -> Iterator[dict[str, int]]:
    """Keep the recorder's module stack, and tell it about quantisers and parametrised weights."""
    names = {module: name for name, module in model.named_modules()}
    ends: dict[str, int] = {}

    replaced: dict[nn.RNNBase, list[Tensor]] = {}

    def enter(module: nn.Module, inputs: tuple) -> None:
        recorder.stack.append(names.get(module, recorder.stack[-1]))
        recorder.inside += isinstance(module, FakeQuantize | Rescale)
        if isinstance(module, nn.RNNBase):
            replaced[module] = flat_weights(module)
            set_flat_weights(module, [recorder.stand_in(weight) for weight in flat_weights(module)])

    def leave(module: nn.Module, inputs: tuple, output: Any) -> None:
        name = recorder.stack.pop()
        ends[name] = len(recorder.ops)
        if isinstance(module, FakeQuantize):
            recorder.inside -= 1
            recorder.quantized(inputs[0], output, name)
        elif isinstance(module, Rescale):
            recorder.inside -= 1
            recorder.rescaled(inputs[0], name.rpartition(".")[0], module.bias and module.bias.stored)
        elif isinstance(module, nn.RNNBase):
            set_flat_weights(module, replaced.pop(module))
        elif isinstance(module, ParametrizationList) and isinstance(output, Tensor):
            layer, _, tensor = name.partition(_PARAMETRIZED)
            recorder.rename_stored(output, f"{layer}.{tensor}", layer)

    handles = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave)]
    try:
        yield ends
    finally:
        for handle in handles:
            handle.remove()
        for module, weights in replaced.items():
            set_flat_weights(module, weights)
