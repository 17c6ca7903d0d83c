"""The dispatch mode that writes down every executed operation.

Activations are what depends on the example: meta tensors, no arithmetic is done on them. What depends on parameters
alone is computed for real and is free, as it happens before inference; the effective weight that meets an activation is
therefore the one that is recorded.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from micronet_cli.torch_internals import TorchDispatchMode, writes_to_inputs
from micronet_cli.trace.constants import Constants
from micronet_cli.trace.conversions import Conversions
from micronet_cli.trace.executed import Executed, run, tensors_of
from micronet_cli.trace.fake_quantizer_records import FakeQuantizerRecords
from micronet_cli.trace.fake_quantizers import FAKE_QUANTIZERS, run_fake_quantizer
from micronet_cli.trace.kinds import (
    FACTORIES,
    MOVES,
    PRODUCTS,
    TABLES,
    keeps_bits,
    kind_of,
    program_constant,
    reduction,
)
from micronet_cli.trace.known_tensors import KnownTensors, layout_of, tensors_in
from micronet_cli.trace.layouts import Read
from micronet_cli.trace.level_arithmetic import FOLLOWED
from micronet_cli.trace.overwritten import Overwritten
from micronet_cli.trace.products import Shape
from micronet_cli.trace.records import Dot, Op
from micronet_cli.trace.shuffles import ShuffleWatch, permutation


class Recorder(TorchDispatchMode):
    """Operations of one forward pass, and what is known about its tensors.

    Attributes:
        device: where the parameters are; tables that the network makes where the example is are made here instead.
        ops: what was executed, in order.
        known: values and stored tensors.
        products: per operation index, the product's shape with its tensors.
        quantized_shapes: quantiser -> shape of what it quantised.
        stack: qualified names of the modules being executed, innermost last.
        inside: depth of nested quantisers; their own arithmetic is not counted.
        constants: what is computed of parameters alone.
        conversions: quantisers that are operators, not modules of ours.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.ops: list[Op] = []
        self.known = KnownTensors()
        self.products: dict[int, Shape] = {}
        self.quantized_shapes: dict[str, torch.Size] = {}
        self.stack: list[str] = [""]
        self.inside = 0
        self.conversions = Conversions()
        self._fake_quantizers = FakeQuantizerRecords(self.known, self.ops, self.conversions)
        self.constants = Constants(self.known, self._fake_quantizers)
        self._overwritten = Overwritten()
        self._shuffles = ShuffleWatch()

    # What modules say about themselves.

    def quantized(self, source: Tensor, result: Tensor, quantizer: str) -> None:
        """A quantiser turned ``source`` into ``result``."""
        known = self.known
        known.keep_alive([result])
        self.quantized_shapes[quantizer] = result.shape
        layer = self.stack[-1]
        value = known.activation(source)
        if value is None:
            known.add_stored(result, quantizer, layer, quantizer)
            return
        made = known.add_value_in_new_buffer(result, frozenset([quantizer]))
        read = Read(value, layout_of(source))
        op = Op(
            kind="quantize",
            layer=layer,
            inputs=(value,),
            outputs=(made,),
            elements=result.numel(),
            taken=result.numel(),
            reads=(read,),
        )
        self.ops.append(op)

    def rescaled(self, sums: Tensor, layer: str, bias: Tensor | None) -> None:
        """``layer`` rescaled its product ``sums``, free as a folded BatchNorm's scale is, and maybe added a bias."""
        if bias is None:
            return
        self.known.rename_stored(bias, f"{layer}.bias", layer)
        value = self.known.activation(sums)
        for index in reversed(range(len(self.ops))):
            op = self.ops[index]
            if op.dot is None or value not in op.outputs:
                continue
            stored_bias = self.known.root(bias)
            dot = replace(op.dot, bias=stored_bias)
            self.ops[index] = replace(op, dot=dot)
            return

    def restore(self) -> None:
        """Undo what the network wrote into its own tensors, as observers of ranges do."""
        self._overwritten.restore()

    # Execution.

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Run one operation and write it down.

        Raises:
            ValueError: the network reads the value of a tensor in Python.
        """
        kwargs = kwargs or {}
        kind = kind_of(func, args, kwargs)
        tensors = list(tensors_in((*args, *kwargs.values())))
        if kind == "_local_scalar_dense" and tensors[0].is_meta:
            where = self.stack[-1] or "(the network itself)"
            raise ValueError(f"layer {where!r} reads the value of a tensor in Python; such control flow is not traced")
        kwargs = self._with_values(kind, tensors, kwargs)
        result = self._run(func, kind, args, kwargs, tensors)
        outputs = tensors_of(result)
        self.known.keep_alive(outputs)
        executed = Executed(kind, args, kwargs, tensors, outputs)
        activations = self.known.activations_among(tensors)
        if not activations or kind in FACTORIES:
            self.constants.see(executed, counted=not self.inside)
        elif self.inside:
            for out in outputs:
                self.known.same_value(out, activations[0])
        elif outputs:
            self._record(executed, activations)
        return result

    def _run(self, func: Any, kind: str, args: tuple, kwargs: dict[str, Any], tensors: list[Tensor]) -> Any:
        if writes_to_inputs(func) and self.known.root(tensors[0]) is not None:
            self._overwritten.keep(tensors[0])
        if kind in FAKE_QUANTIZERS:
            return run_fake_quantizer(func, kind, args)
        return run(func, args, kwargs, tensors)

    def _with_values(self, kind: str, tensors: list[Tensor], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments by name; a table gets the parameters' device in place of the example's, which holds no values.

        Values are needed where parameters are gathered by an index: which weights a product reads depends on them.
        """
        device = kwargs.get("device")
        if kind not in TABLES or device is None or device.type != "meta":
            return kwargs
        if any(tensor.is_meta for tensor in tensors):
            return kwargs
        return {**kwargs, "device": self.device}

    def _record(self, executed: Executed, activations: list[Tensor]) -> None:
        """Write down an operation that reads activations."""
        known = self.known
        kind = executed.kind
        args = executed.args
        outputs = executed.outputs
        shuffled_channels = self._shuffles.see(kind, args, outputs[0])
        if shuffled_channels:
            op = permutation(known, executed, self.stack[-1], shuffled_channels)
            self.ops.append(op)
            return
        if self._is_view(executed):
            return
        if kind in FAKE_QUANTIZERS and self._fake_quantizers.of_activation(executed, self.stack[-1]):
            return
        reads = known.reads(executed.tensors)
        inputs = tuple(dict.fromkeys(read.value for read in reads))
        shape = None
        if kind in PRODUCTS:
            shape = executed.product(self.known.is_activation)
        parameters, unstored = self._constants_read(executed.tensors, shape)
        largest = max(activations, key=Tensor.numel)
        taken, rows = reduction(kind, args, outputs, largest)
        codes = None
        if keeps_bits(kind, args):
            codes = known.codes_of(inputs, parameters)
        if kind in FOLLOWED:
            quantizer = self._follow(executed)
            if quantizer is not None:
                codes = frozenset([quantizer])
        made = [known.add_value(out, codes) for out in outputs]
        dot = None
        if shape is not None:
            dot = self._dot(shape)
        op = Op(
            kind=kind,
            layer=self.stack[-1],
            inputs=inputs,
            outputs=tuple(made),
            parameters=parameters,
            constant=unstored or program_constant(kind, args),
            elements=outputs[0].numel(),
            taken=taken,
            rows=rows,
            dot=dot,
            reads=reads,
            arguments=executed.plain_arguments,
            options=executed.plain_options,
        )
        self.ops.append(op)
        if shape is not None and shape.bias is not None:
            self._sum_with(shape.bias, outputs[0], op)

    def _follow(self, executed: Executed) -> str | None:
        """The quantiser that ends with this operation, if it is one that is written out in operators."""
        operands = executed.operands(self.known.activation)
        if operands is None:
            return None
        step = len(self.ops)
        made = Read(len(self.known.values), layout_of(executed.outputs[0]))
        return self.conversions.see(executed.kind, operands, step, made, self.stack[-1])

    def _is_view(self, executed: Executed) -> bool:
        """Whether an operation only shows known activations in another way."""
        kind = executed.kind
        if kind not in MOVES or kind == "copy_":
            return False
        known_outputs = self.known.activations_among(executed.outputs)
        return len(known_outputs) == len(executed.outputs)

    def _constants_read(self, tensors: list[Tensor], shape: Shape | None) -> tuple[tuple[int, ...], bool]:
        """Stored tensors that are read beside a product's own, and whether a constant is stored nowhere."""
        weight = None
        bias = None
        if shape is not None:
            weight = shape.weight
            bias = shape.bias
        parameters: dict[int, None] = {}
        unstored = False
        for tensor in tensors:
            if tensor is bias or self.known.is_activation(tensor):
                continue
            root = self.known.root(tensor)
            if root is None:
                unstored = True
            elif tensor is not weight:
                parameters[root] = None
        return tuple(parameters), unstored

    def _dot(self, shape: Shape) -> Dot:
        """The record of a product, which is the operation written down next."""
        known = self.known
        self.products[len(self.ops)] = shape
        weight = None
        bias = None
        if not self.known.is_activation(shape.weight):
            weight = known.root(shape.weight)
        if shape.bias is not None:
            bias = known.root(shape.bias)
        return shape.dot(weight, bias)

    def _sum_with(self, addend: Tensor, out: Tensor, product: Op) -> None:
        """A product's first operand that is an activation is a sum of its own, not a bias."""
        value = self.known.activation(addend)
        if value is None:
            return
        op = Op(
            kind="add",
            layer=product.layer,
            inputs=(product.outputs[0], value),
            outputs=product.outputs,
            elements=product.elements,
            taken=product.elements,
            reads=self.known.reads((out, addend)),
        )
        self.ops.append(op)
