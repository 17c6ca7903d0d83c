"""What a recorder knows about tensors, by the memory they live in: values and stored tensors."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from torch import Tensor

from micronet_cli.torch_internals import memory_of
from micronet_cli.trace.layouts import Layout, Read
from micronet_cli.trace.records import FLOAT_BITS, Stored, Value

SEQUENCES = (list, tuple)


class KnownTensors:
    """The activations and the stored tensors of one forward pass, and which memory holds which.

    Attributes:
        values: the activations that were made, in order.
        stored: the tensors that inference needs.
        sources: per stored tensor, the tensor itself, None for one that a rule makes up.
    """

    def __init__(self) -> None:
        self.values: list[Value] = []
        self.stored: list[Stored] = []
        self.sources: list[Tensor | None] = []
        self._activations: dict[int, int] = {}
        self._roots: dict[int, int] = {}
        self._alive: list[Tensor] = []

    def keep_alive(self, tensors: Iterable[Tensor]) -> None:
        """Hold the tensors to the end: memory is told apart by address, so none may be freed while recording."""
        self._alive += tensors

    def activation(self, tensor: Tensor) -> int | None:
        """Index of the value that the tensor is a view of, None for a constant."""
        return self._activations.get(memory_of(tensor))

    def is_activation(self, tensor: Tensor) -> bool:
        """Whether the tensor is a view of a value."""
        return memory_of(tensor) in self._activations

    def activations_among(self, tensors: Iterable[Tensor]) -> list[Tensor]:
        """The tensors that are views of a value, in order."""
        return [tensor for tensor in tensors if self.is_activation(tensor)]

    def root(self, tensor: Tensor) -> int | None:
        """Index of the stored tensor behind a constant, None where nothing is stored for it."""
        return self._roots.get(memory_of(tensor))

    def roots(self, tensors: Iterable[Tensor]) -> tuple[int, ...]:
        """Indices of the stored tensors behind some constants, each once."""
        found: dict[int, None] = {}
        for tensor in tensors:
            root = self.root(tensor)
            if root is not None:
                found[root] = None
        return tuple(found)

    def reads(self, tree: Any) -> tuple[Read, ...]:
        """The activations among some tensors (nested in lists, tuples and dicts), as they are read here."""
        found: dict[Read, None] = {}
        for tensor in tensors_in((tree,)):
            value = self.activation(tensor)
            if value is not None:
                found[Read(value, layout_of(tensor))] = None
        return tuple(found)

    def add_value(self, tensor: Tensor, quantizers: frozenset[str] | None) -> int:
        """Make the tensor a new activation; one made in place takes over the buffer of the value before it.

        Args:
            tensor: what an operation made, or the network's input.
            quantizers: see ``Value``.
        """
        self._alive.append(tensor)
        memory = memory_of(tensor)
        index = len(self.values)
        buffer = index
        overwritten = self._activations.get(memory)
        if overwritten is not None:
            buffer = self.values[overwritten].buffer
        layout = layout_of(tensor)
        float_bits = _float_bits(tensor)
        value = Value(layout.elements, buffer, float_bits, quantizers, layout)
        self.values.append(value)
        self._activations[memory] = index
        return index

    def add_value_in_new_buffer(self, tensor: Tensor, quantizers: frozenset[str] | None) -> int:
        """``add_value``, but whatever was known about the tensor's memory is forgotten first."""
        self._activations.pop(memory_of(tensor), None)
        return self.add_value(tensor, quantizers)

    def same_value(self, tensor: Tensor, as_tensor: Tensor) -> None:
        """``tensor`` counts as the value that ``as_tensor`` is, unless it is known already."""
        value = self._activations[memory_of(as_tensor)]
        self._activations.setdefault(memory_of(tensor), value)

    def add_stored(
        self,
        tensor: Tensor,
        name: str,
        layer: str,
        quantizer: str | None = None,
        derived: bool = False,
    ) -> int:
        """Make the tensor a stored one, in place of what was known about it; see ``Stored``."""
        self._alive.append(tensor)
        index = len(self.stored)
        self._roots[memory_of(tensor)] = index
        self.sources.append(tensor)
        row = Stored(
            name=name,
            layer=layer,
            elements=tensor.numel(),
            nonzeros=tensor.numel(),
            float_bits=_float_bits(tensor),
            quantizer=quantizer,
            derived=derived,
        )
        self.stored.append(row)
        return index

    def add_made_up(self, stored: Stored) -> int:
        """Store something that no tensor stands for."""
        self.stored.append(stored)
        self.sources.append(None)
        return len(self.stored) - 1

    def same_root(self, tensor: Tensor, root: int) -> None:
        """``tensor`` only moves the elements of a stored tensor about."""
        self._roots[memory_of(tensor)] = root

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
        if index is None:
            return
        row = self.stored[index]
        self.stored[index] = replace(row, name=name, layer=layer, derived=derived)

    def codes_of(self, values: Iterable[int], stored: Iterable[int]) -> frozenset[str] | None:
        """Quantisers whose codes these values and stored tensors hold together, None where one holds floats."""
        together: set[str] = set()
        for index in values:
            quantizers = self.values[index].quantizers
            if quantizers is None:
                return None
            together |= quantizers
        for index in stored:
            quantizer = self.stored[index].quantizer
            if not quantizer:
                return None
            together.add(quantizer)
        return frozenset(together)


def layout_of(tensor: Tensor) -> Layout:
    """How the tensor lies in its memory."""
    shape = tuple(tensor.shape)
    strides = tuple(tensor.stride())
    return Layout(shape, strides, int(tensor.storage_offset()))


def tensors_in(tree: Iterable[Any]) -> Iterable[Tensor]:
    """The tensors in nested lists, tuples and dicts, in order."""
    for leaf in tree:
        if isinstance(leaf, Tensor):
            yield leaf
        elif isinstance(leaf, SEQUENCES):
            yield from tensors_in(leaf)
        elif isinstance(leaf, dict):
            yield from tensors_in(leaf.values())


def _float_bits(tensor: Tensor) -> int:
    if not tensor.is_floating_point():
        return FLOAT_BITS
    bits = 8 * tensor.element_size()
    return min(FLOAT_BITS, bits)
