"""A traced network that stays alive: its bits and zeros are read anew from the model at any time."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from micronet_cli.layers.effective_weight import effective_weight
from micronet_cli.layers.fake_quantize import ActivationFakeQuantize, FakeQuantize
from micronet_cli.torch_internals import memory_of, uncompiled, version_of
from micronet_cli.trace.folded import fold_batch_norms
from micronet_cli.trace.observe import PARAMETRIZED, record
from micronet_cli.trace.products import Shape
from micronet_cli.trace.records import ExecutedQuantizer, TracedNetwork
from micronet_cli.trace.weights import WeightReader


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
        self._modules = dict(self.model.named_modules())
        recorder, network = record(self.model, self.input_shape)
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

    @property
    def structure(self) -> TracedNetwork:
        """The network with bits and zeros as they were when it was traced; the same object until it is traced anew."""
        return self._network

    def _quantizer(self, name: str, shape: torch.Size, codes: bool) -> ExecutedQuantizer:
        module = self._modules[name]
        assert isinstance(module, FakeQuantize)
        layer = name.partition(PARAMETRIZED)[0] if PARAMETRIZED in name else name.rpartition(".")[0]
        limits = None
        if codes and isinstance(module, ActivationFakeQuantize):
            zero_point = int(module.qparams()[1])
            limits = (zero_point, zero_point + module.levels - 1)
        return ExecutedQuantizer(name, layer, module.code_bits, module.qparams_bits(shape), limits)
