"""Ranges of a batch of activations: what a quantiser's range starts from, or is averaged from.

Every function takes the values and the bits of their quantiser and returns two 0-dim tensors.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from micronet_cli.functional.quantization import codes, quant_max, range_linear, tensor_range

RangeEstimate = Callable[[Tensor, float], tuple[Tensor, Tensor]]
SAMPLE = 1 << 16  # values that the slower estimates look at
TAIL = 0.001  # fraction of the values beyond each end of the ``percentile`` range
SHRINKS = 40  # ranges that ``mse`` tries


def min_max(x: Tensor, bits: float) -> tuple[Tensor, Tensor]:
    """Smallest and largest value.

    >>> min_max(torch.tensor([1.0, -2.0, 3.0]), 4)
    (tensor(-2.), tensor(3.))
    """
    return tensor_range(x)


def percentile(x: Tensor, bits: float) -> tuple[Tensor, Tensor]:
    """The values that 0.1 % lie beyond on each side (Wu et al., arXiv 2004.09602: 99.9 %)."""
    values = sample(x)
    both_tails = torch.tensor([TAIL, 1 - TAIL], device=x.device)
    ends = torch.quantile(values, both_tails)
    low, high = ends.unbind()
    return low, high


def mse(x: Tensor, bits: float) -> tuple[Tensor, Tensor]:
    """The range with the smallest squared rounding error, among the full one shrunk to 1/40, 2/40 .. 40/40.

    Both ends shrink together (Nagel et al., arXiv 2106.08295, range setting). Ties go to the wider range.
    """
    values = sample(x)
    low, high = tensor_range(values)
    largest = quant_max(bits)
    fortieths = torch.arange(SHRINKS, 0, -1, device=x.device)
    shares = fortieths / SHRINKS
    errors = []
    for share in shares:
        scale, zero_point = range_linear(low * share, high * share, bits)
        integers = codes(values, scale, zero_point, largest) + zero_point
        rounded = integers / scale
        difference = rounded - values
        errors.append(difference.square().mean())
    smallest = torch.stack(errors).argmin()
    # Indexing with a tensor's value would wait for a GPU.
    best = torch.take(shares, smallest)
    return low * best, high * best


def sample(x: Tensor) -> Tensor:
    """At most ``SAMPLE`` values of ``x`` at equal distances, flat, float32."""
    flat = x.detach().reshape(-1)
    count = flat.numel()
    stride = -(-count // SAMPLE)
    # A stride with a factor in common with the shape would meet only some rows, columns or channels.
    while math.gcd(stride, count) > 1:
        stride += 1
    sampled = flat[::stride]
    return sampled.float()
