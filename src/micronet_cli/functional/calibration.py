"""Ranges of a batch of activations: what a quantiser's range starts from, or is averaged from.

Every function takes the values and the bits of their quantiser and returns two 0-dim tensors.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from micronet_cli.functional.quantization import quant_max, range_linear, tensor_range

RangeEstimate = Callable[[Tensor, float], tuple[Tensor, Tensor]]
SAMPLE = 1 << 16  # values that the slower estimates look at
TAIL = 0.001  # fraction of the values beyond each end of the ``percentile`` range
SHRINKS = 40  # ranges that ``mse`` tries
TOGETHER = 1 << 11  # values that it rounds to all of them at one time


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
    fortieths = torch.arange(SHRINKS, 0, -1, device=x.device)
    shares = fortieths / SHRINKS
    scales, zero_points = range_linear(low * shares, high * shares, bits)
    errors = _squared_errors(values, scales, zero_points, quant_max(bits))
    smallest = errors.argmin()
    # Indexing with a tensor's value would wait for a GPU.
    best = torch.take(shares, smallest)
    return low * best, high * best


def _squared_errors(values: Tensor, scales: Tensor, zero_points: Tensor, largest: int) -> Tensor:
    """What rounding to each of some ranges costs, in sum over the values: ``[n], 2 x [ranges] -> [ranges]``."""
    scale = scales[:, None]
    zero_point = zero_points[:, None]
    in_steps = torch.zeros_like(scales)
    # The values in all ranges would be read from memory at every operation; a part of them stays in the cache.
    for part in values.split(TOGETHER):
        exact = torch.addcmul(-zero_point, part, scale)
        rounded = exact.round().clamp_(0, largest)
        in_steps += rounded.sub_(exact).square_().sum(1)
    return in_steps / scales / scales  # a square could be out of range


def sample(x: Tensor) -> Tensor:
    """At most ``SAMPLE`` values of ``x`` at equal distances, flat, float32."""
    values = x.detach()
    count = values.numel()
    stride = -(-count // SAMPLE)
    # A stride with a factor in common with the shape would meet only some rows, columns or channels.
    while math.gcd(stride, count) > 1:
        stride += 1
    if values.is_contiguous():
        sampled = values.view(-1)[::stride]
    else:
        # Flat it would be a copy of all, many times as large as what is looked at.
        places = torch.arange(0, count, stride, device=x.device)
        sampled = torch.take(values, places)
    return sampled.float()
