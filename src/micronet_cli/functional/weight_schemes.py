"""Weights of two or three levels, and weights that are bent before they are rounded."""

import torch
from torch import Tensor

from micronet_cli.functional.quantization import StraightThrough


def binary(weight: Tensor) -> Tensor:
    """``sign(w) mean|w|`` per output channel (XNOR-Net, arXiv 1603.05279, equation 6), sign(0) = 1; gradient 1.

    >>> binary(torch.tensor([[-1.0, 3.0]])).tolist()
    [[-2.0, 2.0]]
    """
    values = weight.detach()
    magnitude = values.abs()
    everything = torch.ones_like(values, dtype=torch.bool)
    level = _channel_mean(magnitude, everything)
    is_negative = values < 0
    signed = torch.where(is_negative, -level, level)
    return StraightThrough.apply(weight, signed)


def ternary(weight: Tensor) -> Tensor:
    """-a, 0 or a per output channel (Ternary Weight Networks, arXiv 1605.04711, equations 5 and 6); gradient 1.

    0 where |w| <= d = 0.7 mean|w|; a is the mean magnitude of the others. The mean is over non-zeros, since zeros of a
    mask say nothing of the spread.

    >>> ternary(torch.tensor([[-1.0, 0.25, 3.0, 0.0]])).tolist()
    [[-2.0, 0.0, 2.0, 0.0]]
    """
    values = weight.detach()
    magnitude = values.abs()
    is_nonzero = magnitude > 0
    spread = _channel_mean(magnitude, is_nonzero)
    threshold = 0.7 * spread
    used = magnitude > threshold
    level = _channel_mean(magnitude, used)
    signs = values.sign() * used
    return StraightThrough.apply(weight, signs * level)


def dorefa(weight: Tensor) -> Tensor:
    """DoReFa-Net's weight before rounding: ``max|w| tanh(w) / max|tanh(w)|`` (arXiv 1606.06160, equation 9).

    The paper's weights end in [-1, 1] and on 2^k levels without 0. Here they keep the trained network's ``max|w|``,
    and are to be rounded to the 2n + 1 integers -n .. n, so that 0 stays 0. The gradient goes through tanh.
    """
    bent = torch.tanh(weight)
    largest_bent = _largest_magnitude(bent)
    largest = _largest_magnitude(weight)
    ratio = largest / largest_bent
    factor = torch.where(largest_bent > 0, ratio, 1.0)
    return bent * factor


def _largest_magnitude(values: Tensor) -> Tensor:
    """0-dim, without a gradient."""
    magnitude = values.detach().abs()
    return magnitude.amax()


def _channel_mean(values: Tensor, used: Tensor) -> Tensor:
    """Mean of the ``used`` values per output channel, 0 where there are none: ``[C_out, 1, ...]``."""
    dims = tuple(range(1, values.dim()))
    used_values = values * used
    total = used_values.sum(dims, keepdim=True)
    count = used.sum(dims, keepdim=True)
    return total / count.clamp_min(1)
