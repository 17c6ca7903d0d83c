"""The dispatch mode that writes down every executed operation.

Activations are what depends on the example: meta tensors, no arithmetic is done on them. What depends on parameters
alone is computed for real and is free, as it happens before inference; the effective weight that meets an activation is
therefore the one that is recorded.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from micronet_cli.torch_internals import TorchDispatchMode
from micronet_cli.trace.kinds import FACTORIES, MOVES, PRODUCTS, keeps_bits, kind_of, program_constant, reduction
from micronet_cli.trace.known_tensors import KnownTensors, layout_of, tensors_in
from micronet_cli.trace.layouts import Read
from micronet_cli.trace.products import Shape, product_shape
from micronet_cli.trace.records import Dot, Op, Stored
from micronet_cli.trace.shuffles import ShuffleWatch


class Recorder(TorchDispatchMode):
    """Operations of one forward pass, and what is known about its tensors.

    Attributes:
        ops: what was executed, in order.
        known: values and stored tensors.
        products: per operation index, the product's shape with its tensors.
        quantized_shapes: quantiser -> shape of what it quantised.
        stack: qualified names of the modules being executed, innermost last.
        inside: depth of nested quantisers; their own arithmetic is not counted.
        free_multiplications: those of convolutions and products of parameters alone, done before inference.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ops: list[Op] = []
        self.known = KnownTensors()
        self.products: dict[int, Shape] = {}
        self.quantized_shapes: dict[str, torch.Size] = {}
        self.stack: list[str] = [""]
        self.inside = 0
        self.free_multiplications = 0
        self._shuffles = ShuffleWatch()

    # What modules say about themselves.

    def quantized(self, source: Tensor, result: Tensor, quantizer: str) -> None:
        """A quantiser turned ``source`` into ``result``."""
        self.known.keep_alive([result])
        self.quantized_shapes[quantizer] = result.shape
        layer = self.stack[-1]
        value = self.known.activation(source)
        if value is None:
            self.known.add_stored(result, quantizer, layer, quantizer)
            return
        made = self.known.add_value_in_new_buffer(result, frozenset([quantizer]))
        elements = result.numel()
        reads = (Read(value, layout_of(source)),)
        op = Op("quantize", layer, (value,), (made,), elements=elements, taken=elements, reads=reads)
        self.ops.append(op)

    def rescaled(self, sums: Tensor, layer: str, bias: Tensor | None) -> None:
        """``layer`` rescaled its product ``sums``, free as a folded BatchNorm's scale is, and maybe added a bias."""
        if bias is None:
            return
        self.known.rename_stored(bias, f"{layer}.bias", layer)
        value = self.known.activation(sums)
        for index in reversed(range(len(self.ops))):
            op = self.ops[index]
            if op.dot is not None and value in op.outputs:
                dot = replace(op.dot, bias=self.known.root(bias))
                self.ops[index] = replace(op, dot=dot)
                return

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
        result = _execute(func, args, kwargs, tensors)
        outputs = list(tensors_in((result,)))
        self.known.keep_alive(outputs)
        activations = [tensor for tensor in tensors if self.known.activation(tensor) is not None]
        if not activations or kind in FACTORIES:
            self._constant(kind, args, tensors, outputs)
        elif self.inside:
            for out in outputs:
                self.known.same_value(out, activations[0])
        elif outputs:
            self._record(kind, args, kwargs, tensors, outputs)
        return result

    def _constant(self, kind: str, args: tuple, tensors: list[Tensor], outputs: list[Tensor]) -> None:
        """Arithmetic on parameters makes a stored tensor; moving them about leaves the old one."""
        if kind in PRODUCTS:
            # No operand is told apart as the weight: all that matters is how much is multiplied.
            like_activations = (True,) * len(args)
            self.free_multiplications += product_shape(kind, args, outputs[0], like_activations).multiplications
        roots = self.known.roots(tensors)
        if not roots or kind in FACTORIES or self.inside:
            return
        only_moved = kind in MOVES and len(roots) == 1
        for out in outputs:
            if self.known.root(out) is not None:
                continue
            if only_moved:
                self.known.same_root(out, roots[0])
            else:
                origin = self.known.stored[roots[0]]
                self.known.add_stored(out, f"{origin.name} ({kind})", origin.layer, derived=True)

    def _record(self, kind: str, args: tuple, kwargs: dict, tensors: list[Tensor], outputs: list[Tensor]) -> None:
        """Write down an operation that reads an activation."""
        known = self.known
        shuffled_channels = self._shuffles.see(kind, args, outputs[0])
        if shuffled_channels:
            self._permutation(tensors[0], outputs, shuffled_channels)
            return
        if kind in MOVES and kind != "copy_" and all(known.activation(out) is not None for out in outputs):
            return  # a view
        reads = known.reads(tensors)
        inputs = tuple(dict.fromkeys(read.value for read in reads))
        shape = None
        if kind in PRODUCTS:
            shape = self._product(kind, args, outputs[0])
        parameters, other_constant = self._constants_read(tensors, shape)
        depending = [tensor for tensor in tensors if known.activation(tensor) is not None]
        taken, rows = reduction(kind, args, outputs, max(depending, key=Tensor.numel))
        codes = known.codes_of(inputs, parameters) if keeps_bits(kind, args) else None
        made = tuple(known.add_value(out, codes) for out in outputs)
        op = Op(
            kind=kind,
            layer=self.stack[-1],
            inputs=inputs,
            outputs=made,
            parameters=parameters,
            constant=other_constant or program_constant(kind, args),
            elements=outputs[0].numel(),
            taken=taken,
            rows=rows,
            dot=None if shape is None else self._dot(shape),
            reads=reads,
            arguments=tuple(_plain(argument) for argument in args[1:]),
            options={key: _plain(value) for key, value in kwargs.items()},
        )
        self.ops.append(op)
        if shape is not None and shape.bias is not None:
            self._sum_with(shape.bias, outputs[0], op)

    def _constants_read(self, tensors: list[Tensor], shape: Shape | None) -> tuple[tuple[int, ...], bool]:
        """Stored tensors that are read beside a product's own, and whether a constant is stored nowhere."""
        weight = None if shape is None else shape.weight
        bias = None if shape is None else shape.bias
        parameters: dict[int, None] = {}
        unstored = False
        for tensor in tensors:
            if self.known.activation(tensor) is not None or tensor is bias:
                continue
            root = self.known.root(tensor)
            if root is None:
                unstored = True
            elif tensor is not weight:
                parameters[root] = None
        return tuple(parameters), unstored

    def _product(self, kind: str, args: tuple, out: Tensor) -> Shape:
        activations = []
        for argument in args:
            activations.append(isinstance(argument, Tensor) and self.known.activation(argument) is not None)
        return product_shape(kind, args, out, tuple(activations))

    def _dot(self, shape: Shape) -> Dot:
        """The record of a product, which is the operation written down next."""
        self.products[len(self.ops)] = shape
        weight = None
        if self.known.activation(shape.weight) is None:
            weight = self.known.root(shape.weight)
        bias = None if shape.bias is None else self.known.root(shape.bias)
        return shape.dot(weight, bias)

    def _sum_with(self, addend: Tensor, out: Tensor, product: Op) -> None:
        """A product's first operand that is an activation is a sum of its own, not a bias."""
        value = self.known.activation(addend)
        if value is None:
            return
        made = product.outputs
        elements = product.elements
        reads = self.known.reads((out, addend))
        op = Op("add", product.layer, (made[0], value), made, elements=elements, taken=elements, reads=reads)
        self.ops.append(op)

    def _permutation(self, source: Tensor, outputs: list[Tensor], channels: int) -> None:
        """Channels change places: a product with a permutation matrix [channels, channels]."""
        layer = self.stack[-1]
        value = self.known.activation(source)
        assert value is not None
        matrix = self.known.add_made_up(Stored(f"{layer}.permutation", layer, channels * channels, channels))
        codes = self.known.values[value].quantizers
        made = tuple(self.known.add_value(out, codes) for out in outputs)
        elements = outputs[0].numel()
        op = Op(
            kind="permute_channels",
            layer=layer,
            inputs=(value,),
            outputs=made,
            parameters=(matrix,),
            elements=elements,
            taken=elements,
            rows=elements,
            reads=(Read(value, layout_of(source)),),
        )
        self.ops.append(op)


def _execute(func: Any, args: tuple, kwargs: dict, tensors: list[Tensor]) -> Any:
    """The operator's result, on meta tensors throughout where one of its tensors is."""
    on_meta = [tensor.is_meta for tensor in tensors]
    if any(on_meta) and not all(on_meta):
        args = tuple(_lift(argument) for argument in args)
        kwargs = {key: _lift(value) for key, value in kwargs.items()}
    return func(*args, **kwargs)


def _lift(leaf: Any) -> Any:
    """Meta copies of the tensors in an argument."""
    if isinstance(leaf, list | tuple):
        return type(leaf)(_lift(item) for item in leaf)
    if isinstance(leaf, Tensor) and not leaf.is_meta:
        return torch.empty_strided(leaf.shape, leaf.stride(), dtype=leaf.dtype, device="meta")
    return leaf


def _plain(argument: Any) -> Any:
    """An operator's argument, None in the place of a tensor."""
    if isinstance(argument, list | tuple):
        return tuple(_plain(item) for item in argument)
    return None if isinstance(argument, Tensor) else argument
