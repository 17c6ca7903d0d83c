"""A traced network that stays alive: its bits and zeros are read anew from the model at any time."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from micronet_cli.functional.grids import Grid
from micronet_cli.layers.effective_weight import effective_weight
from micronet_cli.layers.fake_quantize import ActivationFakeQuantize, FakeQuantize
from micronet_cli.layers.products import OPERANDS
from micronet_cli.torch_internals import memory_of, uncompiled, version_of
from micronet_cli.trace.converted import convert
from micronet_cli.trace.folded import fold_batch_norms
from micronet_cli.trace.module_watch import PARAMETRIZED
from micronet_cli.trace.observe import record
from micronet_cli.trace.products import Shape
from micronet_cli.trace.recorder import Recorder
from micronet_cli.trace.records import ExecutedQuantizer, Stored, TracedNetwork
from micronet_cli.trace.weights import View, WeightReader


class Trace:
    """A model's executed structure, and the way back to what its weights and quantisers are now.

    ``read`` re-reads bits and zeros only; it traces anew when modules were added or taken away. Weights changed behind
    autograd's back (``weight.data``) are not noticed: make a new trace after such a change.
    """

    def __init__(self, model: nn.Module, input_shape: Sequence[int]) -> None:
        # A compiled model hides the one whose operations are counted.
        self.model = uncompiled(model)
        self.input_shape = tuple(input_shape)
        self._trace()

    def _trace(self) -> None:
        self._modules = dict(self.model.named_modules())
        recorder, network = record(self.model, self.input_shape)
        network = convert(network, recorder.conversions)
        network = replace(network, stored=_without_rounding(recorder, network))
        self._network = fold_batch_norms(network)
        self._shapes = recorder.quantized_shapes
        self._readers = self._weight_readers(recorder)
        self._derived = self._has_computed_weights()
        self._signature = self._structure()

    def _weight_readers(self, recorder: Recorder) -> dict[int, WeightReader]:
        """Product with a weight, as the index of its operation -> what reads that weight."""
        # Folding leaves products out of none and in their order, but their indices change.
        shapes = [recorder.products[index] for index in sorted(recorder.products)]
        products = [index for index, op in enumerate(self._network.ops) if op.dot is not None]
        readers = {}
        for index, shape in zip(products, shapes, strict=True):
            dot = self._network.ops[index].dot
            if dot is None or dot.weight is None:
                continue
            readers[index] = self._reader(shape, dot.weight, recorder)
        return readers

    def _has_computed_weights(self) -> bool:
        """Whether values decide what is traced: numbers of written-out quantisers, or weights that are computed.

        A computed weight is neither a parameter nor what a layer's ``weight`` property makes.
        """
        if self._network.quantizers:
            return True
        owners = {memory_of(tensor) for tensor in self._tensors()}
        for reader in self._readers.values():
            operand = reader.operand
            if operand is not None and memory_of(operand) not in owners:
                return True
        return False

    def _tensors(self) -> list[Tensor]:
        parameters = self.model.parameters()
        buffers = self.model.buffers()
        return [*parameters, *buffers]

    def _structure(self) -> tuple:
        """What the trace depends on: the modules, and all values where weights are computed from them."""
        modules = [id(module) for module in self.model.modules()]
        versions = []
        if self._derived:
            versions = [version_of(tensor) for tensor in self._tensors()]
        return (*modules, *versions)

    def _reader(self, shape: Shape, weight: int, recorder: Recorder) -> WeightReader:
        """Reads a layer's effective weight where the operand is a view of it, else the operand itself."""
        known = recorder.known
        source = known.sources[weight]
        assert source is not None
        # A recurrent kernel got a meta tensor in the place of the parameter, whose values are read instead.
        original = known.stood_in_for(shape.weight)
        if original is not None:
            shape = replace(shape, weight=View.of(shape.weight).into(original.detach()))
        row = self._network.stored[weight]
        name = row.name
        layer = self._modules.get(name.removesuffix(".weight"))
        is_view = memory_of(shape.weight) == memory_of(source)
        if layer is None or not is_view or effective_weight(layer) is None:
            in_codes = row.quantizer is not None
            return WeightReader(shape, source, None, in_codes, weight in recorder.constants.rounded)
        return WeightReader(shape, source, layer)

    def read(self, codes: bool = False, block: Sequence[int] | None = None) -> TracedNetwork:
        """The network with the bits and zeros of this moment.

        Args:
            codes: integer ranges of weights and inputs too, for accumulator widths.
            block: count kept blocks of this shape in every weight.
        """
        if self._structure() != self._signature:
            self._trace()
        ops = list(self._network.ops)
        stored = list(self._network.stored)
        blocks = tuple(block) if block else None
        grids: defaultdict[int, list[Grid | None]] = defaultdict(list)
        for index, reader in self._readers.items():
            op = ops[index]
            assert op.dot is not None
            weight = op.dot.weight
            assert weight is not None
            found = reader.read(codes, blocks)
            dot, row = found.apply(op.dot, stored[weight])
            ops[index] = replace(op, dot=dot)
            stored[weight] = row
            grids[weight].append(found.grid)
        quantizers = dict(self._network.quantizers)
        for weight, found_grids in grids.items():
            row = stored[weight]
            grid = _common(found_grids)
            if grid is not None:
                stored[weight] = replace(row, quantizer=row.name)
                quantizers[row.name] = ExecutedQuantizer(row.name, row.layer, grid.bits, grid.scale_bits)
        for name, shape in self._shapes.items():
            quantizers[name] = self._quantizer(name, shape, codes)
        return replace(
            self._network,
            ops=tuple(ops),
            stored=tuple(stored),
            quantizers=quantizers,
        )

    @property
    def structure(self) -> TracedNetwork:
        """The network with bits and zeros as they were when it was traced; the same object until it is traced anew."""
        return self._network

    def _quantizer(self, name: str, shape: torch.Size, codes: bool) -> ExecutedQuantizer:
        module = self._modules[name]
        assert isinstance(module, FakeQuantize)
        if PARAMETRIZED in name:
            layer, _, _ = name.partition(PARAMETRIZED)
        elif f".{OPERANDS}." in name:
            layer, _, _ = name.partition(f".{OPERANDS}.")
        else:
            layer, _, _ = name.rpartition(".")
        limits = None
        if codes and isinstance(module, ActivationFakeQuantize):
            _, zero_point = module.qparams()
            smallest = int(zero_point)
            limits = (smallest, smallest + module.levels - 1)
        return ExecutedQuantizer(
            name=name,
            layer=layer,
            bits=module.code_bits,
            stored_bits=module.qparams_bits(shape),
            codes=limits,
        )


def _common(grids: list[Grid | None]) -> Grid | None:
    """The grid of a weight that several products read; None where it is none to one of them."""
    bits = 0
    widest = None
    for grid in grids:
        if grid is None:
            return None
        if grid.bits > bits:
            bits = grid.bits
            widest = grid
    return widest


def _without_rounding(recorder: Recorder, network: TracedNetwork) -> tuple[Stored, ...]:
    """The stored tensors; arithmetic that rounds is a quantiser, not one that derives a tensor from another."""
    stored = list(network.stored)
    for index in recorder.constants.rounded:
        stored[index] = replace(stored[index], derived=False)
    return tuple(stored)
