"""Labels of channels go with the data, from operation to operation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.weak import WeakIdKeyDictionary

from micronet_cli.torch_internals import TorchDispatchMode, operator_name, tree_leaves, tree_map, writes_to_inputs
from micronet_cli.trace.channel_labels import FIXED, Ties, compressed, varying_dims
from micronet_cli.trace.kinds import FACTORIES, SOFTMAXES

# Element-wise, without torch's tag for it.
ELEMENTWISE = frozenset({
    "hardswish", "_to_copy", "native_dropout", "_prelu_kernel", "copy_", "lift_fresh", "detach",
})  # fmt: skip
MOVES = frozenset({
    "view", "_unsafe_view", "reshape", "t", "transpose", "permute", "expand", "slice", "select", "split",
    "split_with_sizes", "unsafe_split", "unbind", "squeeze", "unsqueeze", "alias", "cat", "stack", "roll", "flip",
    "rot90", "repeat", "index", "index_select", "gather", "pixel_shuffle", "pixel_unshuffle", "native_channel_shuffle",
    "channel_shuffle", "diagonal",
})  # fmt: skip
# Dimensions behind the channels are pooled, resized or padded by their own values.
SPATIAL = frozenset({
    "avg_pool1d", "avg_pool2d", "_adaptive_avg_pool2d", "adaptive_max_pool2d", "max_pool2d", "max_pool2d_with_indices",
    "upsample_nearest1d", "upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d", "_upsample_bilinear2d_aa",
    "_upsample_bicubic2d_aa", "reflection_pad2d", "replication_pad2d",
})  # fmt: skip
REDUCTIONS = SOFTMAXES | {"mean", "sum", "amax", "amin", "max", "var", "std"}


class Labeller(TorchDispatchMode):
    """Follows labels through every operation that is executed under it.

    Attributes:
        ties: between the labels.
        paused: while true, operations are not followed: a layer says itself what it does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ties = Ties()
        self.paused = False
        self._labels = WeakIdKeyDictionary()

    def labels_of(self, tensor: Tensor) -> Tensor | None:
        """Of a tensor's channels, None where it holds nothing of a layer."""
        return self._labels.get(tensor)

    def label(self, tensor: Tensor, labels: Tensor, dim: int) -> None:
        """The tensor's channels along a dimension are these, ``[C]``."""
        shape = [1] * tensor.dim()
        shape[dim] = len(labels)
        self._labels[tensor] = labels.view(shape)

    def fix(self, read: Sequence[Any], made: Sequence[Tensor] = ()) -> None:
        """What these tensors hold stays as it is, and so does what was made of it."""
        for tensor in read:
            if isinstance(tensor, Tensor) and tensor in self._labels:
                labels = self._labels[tensor]
                self.ties.fix(labels)
        for tensor in made:
            shape = [1] * tensor.dim()
            self._labels[tensor] = torch.full(shape, FIXED)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Run one operation and label what it gives."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        operands = _tensors_of((args, kwargs))
        is_labelled = any(tensor in self._labels for tensor in operands)
        if is_labelled and not self.paused:
            outputs = _tensors_of(result)
            operation = _Operation(func, args, kwargs, operands, outputs)
            self._follow(operation)
        return result

    def _follow(self, operation: "_Operation") -> None:
        kind = operation.kind
        operands = operation.operands
        outputs = operation.outputs
        if kind in FACTORIES or not outputs:
            return
        if operation.is_elementwise:
            if operation.writes_over_a_part:
                self.fix(operands)
            self._elementwise(operands, outputs)
        elif kind in MOVES:
            self._move(operation)
        elif kind in SPATIAL and self._keeps_channels(operands[0], outputs[0]):
            labels = self._labels[operands[0]]
            self._give(labels, outputs)
        elif kind == "constant_pad_nd":
            widths = operation.args[1]
            self._pad(operands[0], widths, outputs)
        elif kind in REDUCTIONS:
            self._reduce(operands[0], operation.args, outputs)
        else:
            self.fix(operands, outputs)

    def _elementwise(self, operands: list[Tensor], outputs: list[Tensor]) -> None:
        """Labels of the operands go together, place by place."""
        out = outputs[0]
        labelled = [tensor for tensor in operands if tensor in self._labels]
        labels_of_operands = [self._labels[tensor] for tensor in labelled]
        dims = varying_dims(labels_of_operands, out.dim())
        joined = torch.tensor(FIXED)
        is_first = True
        for tensor in operands:
            if not _covers(tensor, out, dims):
                # One value for several channels: without it there would be none.
                self.fix([tensor])
                continue
            labels = self._labels.get(tensor, torch.tensor(FIXED))
            if not is_first:
                self.ties.tie(joined, labels)
            is_first = False
            if labels.numel() >= joined.numel():
                joined = labels
        shape = _padded_shape(joined, out.dim())
        labels = joined.view(shape)
        self._give(labels, outputs)

    def _move(self, operation: "_Operation") -> None:
        """The labels are moved like the data."""

        def in_full(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            if leaf in self._labels:
                labels = self._labels[leaf].expand(leaf.shape)
                return labels.contiguous()
            if leaf.is_floating_point():
                return torch.full(leaf.shape, FIXED)
            return leaf  # an index

        args = tree_map(in_full, operation.args)
        kwargs = tree_map(in_full, operation.kwargs)
        result = operation.func(*args, **kwargs)
        moved = _tensors_of(result)
        for out, labels in zip(operation.outputs, moved, strict=True):
            self._labels[out] = compressed(labels)

    def _keeps_channels(self, source: Tensor, out: Tensor) -> bool:
        """Whether a pooling or the like is over places alone."""
        if source.shape[:2] != out.shape[:2]:
            return False
        places = self._labels[source].shape[2:]
        return max(places, default=1) == 1

    def _pad(self, source: Tensor, widths: Sequence[int], outputs: list[Tensor]) -> None:
        """A constant is put before and behind; ``widths`` begin with those of the last dimension."""
        labels = self._labels[source]
        label_widths = []
        for index, width in enumerate(widths):
            pair = index // 2
            dim = -1 - pair
            if labels.size(dim) == 1:
                # The label is the same all along and goes on: every channel is padded alike.
                width = 0
            label_widths.append(width)
        padded = functional.pad(labels, label_widths, value=FIXED)
        self._give(padded, outputs)

    def _reduce(self, source: Tensor, args: tuple, outputs: list[Tensor]) -> None:
        """What is summed, compared or normalised together goes together."""
        labels = self._labels[source]
        dims = _reduced_dims(args, source.dim())
        for dim in dims:
            labels = self.ties.tie_along(labels, dim)
        if outputs[0].dim() < source.dim():
            labels = labels.squeeze(dims)
        self._give(labels, outputs)

    def _give(self, labels: Tensor, outputs: list[Tensor]) -> None:
        for out in outputs:
            if out.dim() == labels.dim():
                self._labels[out] = labels


@dataclass(frozen=True)
class _Operation:
    """One executed operation.

    Attributes:
        func, args, kwargs: what was called.
        operands: the tensors among the arguments.
        outputs: the tensors that it gave.
    """

    func: Any
    args: tuple
    kwargs: dict
    operands: list[Tensor]
    outputs: list[Tensor]

    @property
    def kind(self) -> str:
        """The operator's name without an in-place mark."""
        name = operator_name(self.func)
        if name == "copy_":
            return name
        return name.rstrip("_")

    @property
    def is_elementwise(self) -> bool:
        """Whether each element of the output hangs on one of each operand."""
        if self.kind in ELEMENTWISE:
            return True
        return torch.Tag.pointwise in self.func.tags

    @property
    def writes_over_a_part(self) -> bool:
        """Whether it writes other values into a part of a larger tensor, which others may read in another way."""
        has_other_values = len(self.operands) > 1
        if not has_other_values or not writes_to_inputs(self.func):
            return False
        target = self.operands[0]
        elements_in_memory = target.untyped_storage().nbytes() // target.element_size()
        return target.numel() != elements_in_memory


def _tensors_of(tree: Any) -> list[Tensor]:
    leaves = tree_leaves(tree)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def _reduced_dims(args: tuple, dims: int) -> list[int]:
    """The dimensions that a reduction names in its second argument, counted from 0; without one all of ``dims``."""
    named = args[1] if len(args) > 1 else None
    if isinstance(named, int):
        named = [named]
    if not named:
        return list(range(dims))
    return [dim % dims for dim in named]


def _padded_shape(tensor: Tensor, dims: int) -> list[int]:
    """The shape with ones in front, so that it has so many dimensions."""
    missing = dims - tensor.dim()
    ones = [1] * missing
    return [*ones, *tensor.shape]


def _covers(tensor: Tensor, out: Tensor, dims: Sequence[int]) -> bool:
    """Whether an operand has a value of its own for each place of the result along these dimensions."""
    shape = _padded_shape(tensor, out.dim())
    own_sizes = [shape[dim] for dim in dims]
    out_sizes = [out.shape[dim] for dim in dims]
    return own_sizes == out_sizes
