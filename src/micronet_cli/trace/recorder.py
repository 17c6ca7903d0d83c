"""The dispatch mode that writes down every executed operation.

Activations are what depends on the example: meta tensors, no arithmetic is done on them. What depends on parameters
alone is computed for real and is free, as it happens before inference; the effective weight that meets an activation is
therefore the one that is recorded.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from micronet_cli.torch_internals import TorchDispatchMode, memory_of
from micronet_cli.trace.kinds import FACTORIES, MOVES, PRODUCTS, keeps_bits, kind_of, program_constant, reduction
from micronet_cli.trace.products import Shape, product_shape
from micronet_cli.trace.records import FLOAT_BITS, Dot, Layout, Op, Read, Stored, Value
from micronet_cli.trace.shuffles import ShuffleWatch


class Recorder(TorchDispatchMode):
    """Operations, values and stored tensors of one forward pass.

    Attributes:
        sources: per stored tensor, the tensor itself, None for one that a rule makes up.
        products: per operation index, the product's shape with its tensors.
        quantized_shapes: quantiser -> shape of what it quantised.
        stack: qualified names of the modules being executed, innermost last.
        inside: depth of nested quantisers; their own arithmetic is not counted.
        free_multiplications: those of convolutions and products of parameters alone, done before inference.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ops: list[Op] = []
        self.values: list[Value] = []
        self.stored: list[Stored] = []
        self.sources: list[Tensor | None] = []
        self.products: dict[int, Shape] = {}
        self.quantized_shapes: dict[str, torch.Size] = {}
        self.stack: list[str] = [""]
        self.inside = 0
        self.free_multiplications = 0
        self._activations: dict[int, int] = {}
        self._roots: dict[int, int] = {}
        self._alive: list[Any] = []  # storages are told apart by address: none may be freed while recording
        self._shuffles = ShuffleWatch()

    # What is known about a tensor, by the memory it lives in.

    def activation(self, tensor: Tensor) -> int | None:
        """Index of the value that the tensor is a view of, None for a constant."""
        return self._activations.get(memory_of(tensor))

    def root(self, tensor: Tensor) -> int | None:
        """Index of the stored tensor behind a constant, None where nothing is stored for it."""
        return self._roots.get(memory_of(tensor))

    def reads(self, tree: Any) -> tuple[Read, ...]:
        """The activations among some tensors, as they are read here."""
        found: dict[Read, None] = {}
        for tensor in _tensors((tree,)):
            value = self.activation(tensor)
            if value is not None:
                found[Read(value, layout_of(tensor))] = None
        return tuple(found)

    def add_input(self, tensor: Tensor) -> None:
        """Make the tensor an activation."""
        self._new_value(tensor, None)

    def add_stored(
        self, tensor: Tensor, name: str, layer: str, quantizer: str | None = None, derived: bool = False
    ) -> int:
        """Make the tensor a stored one, in place of what was known about it."""
        self._alive.append(tensor)
        self._roots[memory_of(tensor)] = len(self.stored)
        self.sources.append(tensor)
        elements = tensor.numel()
        stored = Stored(name, layer, elements, elements, _float_bits(tensor), quantizer, derived=derived)
        self.stored.append(stored)
        return len(self.stored) - 1

    def stand_in(self, tensor: Tensor) -> Tensor:
        """A meta tensor that counts as ``tensor``, for operators that refuse to mix devices."""
        meta = tensor.detach().to("meta")
        self._alive.append(meta)
        root = self.root(tensor)
        if root is not None:
            self._roots[memory_of(meta)] = root
        return meta

    def rename_stored(self, tensor: Tensor, name: str, layer: str, derived: bool = False) -> None:
        """Give the stored tensor behind ``tensor`` the name under which a layer knows it."""
        index = self.root(tensor)
        if index is not None:
            self.stored[index] = replace(self.stored[index], name=name, layer=layer, derived=derived)

    def quantized(self, source: Tensor, result: Tensor, quantizer: str) -> None:
        """A quantiser turned ``source`` into ``result``."""
        self._alive.append(result)
        self.quantized_shapes[quantizer] = result.shape
        value = self.activation(source)
        if value is None:
            self.add_stored(result, quantizer, self.stack[-1], quantizer)
            return
        self._activations.pop(memory_of(result), None)
        made = self._new_value(result, frozenset([quantizer]))
        elements = result.numel()
        reads = (Read(value, layout_of(source)),)
        op = Op("quantize", self.stack[-1], (value,), (made,), elements=elements, taken=elements, reads=reads)
        self.ops.append(op)

    def rescaled(self, sums: Tensor, layer: str, bias: Tensor | None) -> None:
        """``layer`` rescaled its product ``sums``, free as a folded BatchNorm's scale is, and maybe added a bias."""
        if bias is None:
            return
        self.rename_stored(bias, f"{layer}.bias", layer)
        value, root = self.activation(sums), self.root(bias)
        index = next(i for i, op in reversed(list(enumerate(self.ops))) if op.dot is not None and value in op.outputs)
        op = self.ops[index]
        assert op.dot is not None
        self.ops[index] = replace(op, dot=replace(op.dot, bias=root))

    def _new_value(self, tensor: Tensor, quantizers: frozenset[str] | None) -> int:
        self._alive.append(tensor)
        key, index = memory_of(tensor), len(self.values)
        old = self._activations.get(key)
        buffer = index if old is None else self.values[old].buffer
        layout = layout_of(tensor)
        self.values.append(Value(layout.elements, buffer, _float_bits(tensor), quantizers, layout))
        self._activations[key] = index
        return index

    # Execution.

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Run one operation and write it down."""
        kwargs = kwargs or {}
        kind = kind_of(func, args, kwargs)
        tensors = list(_tensors((*args, *kwargs.values())))
        if kind == "_local_scalar_dense" and tensors[0].is_meta:
            where = self.stack[-1] or "(the network itself)"
            raise ValueError(f"layer {where!r} reads the value of a tensor in Python; such control flow is not traced")
        if any(t.is_meta for t in tensors) and not all(t.is_meta for t in tensors):
            result = func(*(_lift(a) for a in args), **{k: _lift(v) for k, v in kwargs.items()})
        else:
            result = func(*args, **kwargs)
        outputs = list(_tensors((result,)))
        self._alive += outputs
        reads = [t for t in tensors if self.activation(t) is not None]
        if not reads or kind in FACTORIES:
            self._constant(kind, args, tensors, outputs)
        elif self.inside:
            for out in outputs:
                self._activations.setdefault(memory_of(out), self._activations[memory_of(reads[0])])
        elif outputs:
            self._record(kind, args, kwargs, tensors, outputs)
        return result

    def _constant(self, kind: str, args: tuple, tensors: list[Tensor], outputs: list[Tensor]) -> None:
        """Arithmetic on parameters makes a stored tensor; moving them about leaves the old one."""
        if kind in PRODUCTS:
            self.free_multiplications += product_shape(kind, args, outputs[0], (True,) * len(args)).multiplications
        roots = list(dict.fromkeys(r for t in tensors if (r := self.root(t)) is not None))
        if not roots or kind in FACTORIES or self.inside:
            return
        for out in outputs:
            if self.root(out) is None:
                if kind in MOVES and len(roots) == 1:
                    self._roots[memory_of(out)] = roots[0]
                else:
                    origin = self.stored[roots[0]]
                    self.add_stored(out, f"{origin.name} ({kind})", origin.layer, derived=True)

    def _record(self, kind: str, args: tuple, kwargs: dict, tensors: list[Tensor], outputs: list[Tensor]) -> None:
        shuffled = self._shuffles.see(kind, args, outputs[0])
        if shuffled:
            self._permutation(tensors[0], outputs, shuffled)
            return
        known = [self.activation(out) for out in outputs]
        if kind in MOVES and kind != "copy_" and all(k is not None for k in known):
            return  # a view
        reads = self.reads(tensors)
        inputs = tuple(dict.fromkeys(read.value for read in reads))
        shape = self._product(kind, args, outputs[0]) if kind in PRODUCTS else None
        constants = [t for t in tensors if self.activation(t) is None and (shape is None or t is not shape.bias)]
        constant = program_constant(kind, args) or any(self.root(t) is None for t in constants)
        read = [t for t in constants if shape is None or t is not shape.weight]
        parameters = tuple(dict.fromkeys(r for t in read if (r := self.root(t)) is not None))
        main = max((t for t in tensors if self.activation(t) is not None), key=Tensor.numel)
        taken, rows = reduction(kind, args, outputs, main)
        tags = self._tags(inputs, parameters) if keeps_bits(kind, args) else None
        made = tuple(self._new_value(out, tags) for out in outputs)
        dot = None if shape is None else self._dot(shape)
        op = Op(
            kind, self.stack[-1], inputs, made, parameters, constant, outputs[0].numel(), taken, rows, dot, reads,
            tuple(_plain(argument) for argument in args[1:]), {key: _plain(value) for key, value in kwargs.items()},
        )  # fmt: skip
        self.ops.append(op)
        if shape is None or shape.bias is None:
            return
        added = self.activation(shape.bias)
        if added is not None:
            elements = op.elements
            both = self.reads((outputs[0], shape.bias))
            self.ops.append(Op("add", op.layer, (made[0], added), made, elements=elements, taken=elements, reads=both))

    def _product(self, kind: str, args: tuple, out: Tensor) -> Shape:
        activations = tuple(isinstance(a, Tensor) and self.activation(a) is not None for a in args)
        return product_shape(kind, args, out, activations)

    def _dot(self, shape: Shape) -> Dot:
        self.products[len(self.ops)] = shape
        weight = None if self.activation(shape.weight) is not None else self.root(shape.weight)
        return shape.dot(weight, None if shape.bias is None else self.root(shape.bias))

    def _permutation(self, source: Tensor, outputs: list[Tensor], channels: int) -> None:
        """Channels change places: a product with a permutation matrix [channels, channels]."""
        value = self.activation(source)
        assert value is not None
        name = f"{self.stack[-1]}.permutation"
        matrix = Stored(name, self.stack[-1], channels * channels, channels)
        self.stored.append(matrix)
        self.sources.append(None)
        tags = self.values[value].quantizers
        made = tuple(self._new_value(out, tags) for out in outputs)
        elements = outputs[0].numel()
        index = (len(self.stored) - 1,)
        read = (Read(value, layout_of(source)),)
        op = Op(
            "permute_channels", self.stack[-1], (value,), made, index, False, elements, elements, elements, None, read
        )
        self.ops.append(op)

    def _tags(self, inputs: Iterable[int], parameters: Iterable[int]) -> frozenset[str] | None:
        """Quantisers whose codes these hold together, None where one holds floats."""
        tags: frozenset[str] = frozenset()
        sources = [self.values[i].quantizers for i in inputs]
        sources += [frozenset([q]) if (q := self.stored[i].quantizer) else None for i in parameters]
        for source in sources:
            if source is None:
                return None
            tags |= source
        return tags


def layout_of(tensor: Tensor) -> Layout:
    """How the tensor lies in its memory."""
    return Layout(tuple(tensor.shape), tuple(tensor.stride()), int(tensor.storage_offset()))


def _plain(argument: Any) -> Any:
    """An operator's argument, None in the place of a tensor."""
    if isinstance(argument, list | tuple):
        return tuple(_plain(item) for item in argument)
    return None if isinstance(argument, Tensor) else argument


def _float_bits(tensor: Tensor) -> int:
    return min(FLOAT_BITS, 8 * tensor.element_size()) if tensor.is_floating_point() else FLOAT_BITS


def _tensors(tree: Iterable[Any]) -> Iterable[Tensor]:
    for leaf in tree:
        if isinstance(leaf, Tensor):
            yield leaf
        elif isinstance(leaf, list | tuple):
            yield from _tensors(leaf)
        elif isinstance(leaf, dict):
            yield from _tensors(leaf.values())


def _lift(leaf: Any) -> Any:
    """Meta copies of the tensors in an argument."""
    if isinstance(leaf, list | tuple):
        return type(leaf)(_lift(item) for item in leaf)
    if isinstance(leaf, Tensor) and not leaf.is_meta:
        return torch.empty_strided(leaf.shape, leaf.stride(), dtype=leaf.dtype, device="meta")
    return leaf
