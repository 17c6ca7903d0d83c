"""Labels of channels go with the data, from operation to operation."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.weak import WeakIdKeyDictionary

from micronet_cli.torch_internals import TorchDispatchMode, operator_name, tree_leaves, tree_map, writes_to_inputs
from micronet_cli.trace.channel_labels import FIXED, Ties, compressed, varying_dims
from micronet_cli.trace.kinds import FACTORIES, SOFTMAXES

# Element-wise, without torch's tag for it.
ELEMENTWISE = frozenset({"hardswish", "_to_copy", "native_dropout", "_prelu_kernel", "copy_", "lift_fresh", "detach"})
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
            labels = self._labels.get(tensor) if isinstance(tensor, Tensor) else None
            if labels is not None:
                self.ties.fix(labels)
        for tensor in made:
            self._labels[tensor] = torch.full([1] * tensor.dim(), FIXED)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Run one operation and label what it gives."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        operands = _tensors((args, kwargs))
        is_labelled = any(tensor in self._labels for tensor in operands)
        if is_labelled and not self.paused:
            self._follow(func, args, kwargs, operands, _tensors(result))
        return result

    def _follow(self, func: Any, args: tuple, kwargs: dict, operands: list[Tensor], outputs: list[Tensor]) -> None:
        name = operator_name(func)
        kind = name if name == "copy_" else name.rstrip("_")
        if kind in FACTORIES or not outputs:
            return
        if torch.Tag.pointwise in func.tags or kind in ELEMENTWISE:
            if writes_to_inputs(func) and len(operands) > 1 and _is_part(operands[0]):
                self.fix(operands)
            self._elementwise(operands, outputs)
        elif kind in MOVES:
            self._move(func, args, kwargs, outputs)
        elif kind in SPATIAL and self._keeps_channels(operands[0], outputs[0]):
            self._give(self._labels[operands[0]], outputs)
        elif kind == "constant_pad_nd":
            self._pad(operands[0], args[1], outputs)
        elif kind in REDUCTIONS:
            self._reduce(operands[0], args, outputs)
        else:
            self.fix(operands, outputs)

    def _elementwise(self, operands: list[Tensor], outputs: list[Tensor]) -> None:
        """Labels of the operands go together, place by place."""
        out = outputs[0]
        labelled = [tensor for tensor in operands if tensor in self._labels]
        dims = varying_dims([self._labels[tensor] for tensor in labelled], out.dim())
        joined: Tensor | None = None
        for tensor in operands:
            if not _covers(tensor, out, dims):
                # One value for several channels: without it there would be none.
                self.fix([tensor])
                continue
            labels = self._labels.get(tensor, torch.tensor(FIXED))
            if joined is None:
                joined = labels
            self.ties.tie(joined, labels)
            joined = max(joined, labels, key=Tensor.numel)
        if joined is None:
            self.fix([], outputs)
            return
        missing = out.dim() - joined.dim()
        shape = [1] * missing + list(joined.shape)
        self._give(joined.view(shape), outputs)

    def _move(self, func: Any, args: tuple, kwargs: dict, outputs: list[Tensor]) -> None:
        """The labels are moved like the data."""

        def in_full(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            if leaf in self._labels:
                return self._labels[leaf].expand(leaf.shape).contiguous()
            if leaf.is_floating_point():
                return torch.full(leaf.shape, FIXED)
            return leaf  # an index

        moved = func(*tree_map(in_full, args), **tree_map(in_full, kwargs))
        for out, labels in zip(outputs, _tensors(moved), strict=True):
            self._labels[out] = compressed(labels)

    def _keeps_channels(self, source: Tensor, out: Tensor) -> bool:
        """Whether a pooling or the like is over places alone."""
        labels = self._labels[source]
        places = labels.shape[2:]
        return source.shape[:2] == out.shape[:2] and max(places, default=1) == 1

    def _pad(self, source: Tensor, widths: Sequence[int], outputs: list[Tensor]) -> None:
        """A constant is put before and behind; ``widths`` begin with those of the last dimension."""
        labels = self._labels[source]
        label_widths = []
        for index, width in enumerate(widths):
            dim = -1 - index // 2
            # Where the label is the same all along it goes on: every channel is padded alike.
            label_widths.append(width if labels.size(dim) > 1 else 0)
        padded = functional.pad(labels, label_widths, value=FIXED)
        self._give(padded, outputs)

    def _reduce(self, source: Tensor, args: tuple, outputs: list[Tensor]) -> None:
        """What is summed, compared or normalised together goes together."""
        labels = self._labels[source]
        reduced = args[1] if len(args) > 1 else None
        if isinstance(reduced, int):
            reduced = [reduced]
        dims = [dim % source.dim() for dim in reduced or range(source.dim())]
        for dim in dims:
            labels = self.ties.tie_along(labels, dim)
        if outputs[0].dim() < source.dim():
            labels = labels.squeeze(dims)
        self._give(labels, outputs)

    def _give(self, labels: Tensor, outputs: list[Tensor]) -> None:
        for out in outputs:
            if out.dim() == labels.dim():
                self._labels[out] = labels


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _covers(tensor: Tensor, out: Tensor, dims: Sequence[int]) -> bool:
    """Whether an operand has a value of its own for each place of the result along these dimensions."""
    sizes = [tensor.size(dim) if tensor.dim() >= -dim else 1 for dim in dims]
    return sizes == [out.size(dim) for dim in dims]


def _is_part(tensor: Tensor) -> bool:
    """Whether a tensor is a part of a larger one, which other tensors may read in another way."""
    elements = tensor.untyped_storage().nbytes() // tensor.element_size()
    return tensor.numel() != elements
