"""Element-wise work on large CPU tensors, block by block.

A chain of element-wise operators reads and writes the whole tensor each; a block that stays in the processor's
second-level cache goes through the chain before the next one is fetched.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK = 1 << 18  # elements: a MiB of floats, halved between two threads


def blocks_pay(x: Tensor) -> bool:
    """Whether ``x`` is a plain float32 CPU tensor larger than a block; a compiler fuses by itself."""
    if torch.compiler.is_compiling():
        return False
    if type(x) not in (Tensor, torch.nn.Parameter):
        return False
    if x.device.type != "cpu":
        return False
    if x.dtype != torch.float32:
        return False
    return x.numel() > BLOCK


def is_dense(x: Tensor) -> bool:
    """Whether the elements lie in memory without gaps."""
    if x.is_contiguous():
        return True
    is_image = x.dim() == 4
    return is_image and x.is_contiguous(memory_format=torch.channels_last)


def dense(x: Tensor) -> Tensor:
    """``x``, or a copy without gaps."""
    if is_dense(x):
        return x
    return x.contiguous()


def flat(x: Tensor) -> Tensor:
    """The elements of a dense tensor as they lie in memory: a 1-d view."""
    size = (x.numel(),)
    stride = (1,)
    return x.as_strided(size, stride)


def blocks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Flat blocks of tensors of one shape and layout, each dense: views that share their memory."""
    split = []
    for tensor in tensors:
        elements = flat(tensor)
        split.append(elements.split(BLOCK))
    yield from zip(*split, strict=True)
