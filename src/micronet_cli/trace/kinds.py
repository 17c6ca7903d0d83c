"""What the tracer has to know about operators: which only move data, which are products, how far reductions reach."""

import math
from typing import Any

import torch
from torch import Tensor

from micronet_cli.torch_internals import operator_name


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


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
        bounds = [bound for bound in (*args[1:], *kwargs.values()) if bound is not None]
        return "clamp_min" if len(bounds) == 1 else "clamp"
    if name == "copy_" or name.startswith("__"):
        return name
    return name.rstrip("_")


def keeps_bits(kind: str, args: tuple) -> bool:
    """Whether the output holds only values of the inputs (and zero, which every quantiser holds)."""
    if kind == "constant_pad_nd" and len(args) > 2:
        return args[2] == 0
    return kind in MOVES or kind == "relu"


def reduction(kind: str, args: tuple, outputs: list[Tensor], main: Tensor) -> tuple[int, int]:
    """(elements taken, rows) of an operation on ``main``; see ``records.Op``."""
    elements = outputs[0].numel()
    if kind in WINDOWS:
        window = args[1] if isinstance(args[1], list | tuple) else [args[1]] * 2
        return elements * math.prod(window), elements
    if kind in SOFTMAXES:
        return main.numel(), main.numel() // max(main.shape[args[1]], 1)
    if kind in NORMS:
        return main.numel(), max(outputs[1].numel(), 1)
    return main.numel(), elements


def program_constant(kind: str, args: tuple) -> bool:
    """Whether an arithmetic operation has a Python number for an operand."""
    return kind in BINARY and not all(isinstance(a, torch.Tensor) for a in args[:2])
