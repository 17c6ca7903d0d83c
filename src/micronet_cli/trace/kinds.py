"""What the tracer has to know about operators: which only move data, which are products, how far reductions reach."""

import math
from typing import Any

from torch import Tensor

from micronet_cli.torch_internals import operator_name


def _names(text: str) -> frozenset[str]:
    names = text.split()
    return frozenset(names)


# Values go through unchanged, maybe moved, dropped or repeated: free, and bits stay.
MOVES = _names("""
    view _unsafe_view reshape t transpose permute expand slice select split split_with_sizes unsafe_split unbind
    squeeze unsqueeze as_strided alias detach clone copy copy_ _to_copy lift_fresh lift_fresh_copy contiguous cat
    stack roll flip rot90 repeat repeat_interleave index index_select gather unfold im2col pixel_shuffle
    pixel_unshuffle reflection_pad1d reflection_pad2d replication_pad2d constant_pad_nd upsample_nearest1d
    upsample_nearest2d max_pool2d max_pool2d_with_indices max_pool3d_with_indices adaptive_max_pool2d amax max
    dropout native_dropout diagonal tril triu movedim slice_scatter select_scatter index_put view_as_real
    view_as_complex
""")

# Make a tensor from a shape, or a constant from another tensor's shape: nothing is read.
FACTORIES = _names("new_zeros new_ones new_full new_empty zeros_like ones_like full_like empty_like")

PRODUCTS = _names("convolution mm addmm bmm baddbmm mv")
BINARY = _names("add sub rsub mul div true_divide maximum minimum pow")
SOFTMAXES = _names("_softmax _safe_softmax _log_softmax")
NORMS = _names("instance_norm native_layer_norm native_group_norm _fused_rms_norm")
WINDOWS = _names("avg_pool2d")
BATCH_NORMS = _names("native_batch_norm _native_batch_norm_legit_no_training _batch_norm_no_update")


def kind_of(func: Any, args: tuple, kwargs: dict) -> str:
    """Name under which an operator is recorded and priced: ``aten.add_.Tensor -> add``.

    Operators that do different things are told apart: ``gelu_tanh``, ``clamp_min`` for a clamp with one bound, and
    ``instance_norm`` for a BatchNorm that takes its statistics from the example itself.
    """
    name = operator_name(func)
    if name == "native_batch_norm" and args[5]:
        return "instance_norm"
    if name == "gelu" and kwargs.get("approximate") == "tanh":
        return "gelu_tanh"
    if name in ("clamp", "clamp_"):
        return _kind_of_clamp(args, kwargs)
    if name == "copy_" or name.startswith("__"):
        return name
    return name.rstrip("_")


def _kind_of_clamp(args: tuple, kwargs: dict) -> str:
    bounds = 0
    for bound in (*args[1:], *kwargs.values()):
        if bound is not None:
            bounds += 1
    return "clamp_min" if bounds == 1 else "clamp"


def keeps_bits(kind: str, args: tuple) -> bool:
    """Whether the output holds only values of the inputs (and zero, which every quantiser holds)."""
    if kind == "constant_pad_nd" and len(args) > 2:
        padding = args[2]
        return padding == 0
    return kind in MOVES or kind == "relu"


def reduction(kind: str, args: tuple, outputs: list[Tensor], main: Tensor) -> tuple[int, int]:
    """(elements taken, rows) of an operation on ``main``; see ``records.Op``."""
    elements = outputs[0].numel()
    taken = main.numel()
    if kind in WINDOWS:
        window = args[1]
        if not isinstance(window, list | tuple):
            window = (window, window)
        return elements * math.prod(window), elements
    if kind in SOFTMAXES:
        dim = args[1]
        row_length = max(main.shape[dim], 1)
        return taken, taken // row_length
    if kind in NORMS:
        means = outputs[1]
        return taken, max(means.numel(), 1)
    return taken, elements


def program_constant(kind: str, args: tuple) -> bool:
    """Whether an arithmetic operation has a Python number for an operand."""
    if kind not in BINARY:
        return False
    operands = args[:2]
    return not all(isinstance(operand, Tensor) for operand in operands)
