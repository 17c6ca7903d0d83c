"""Cross-layer equalisation and bias correction (Nagel et al., Data-Free Quantization, arXiv 1906.04721)."""

import torch
from torch import Tensor

RESOLUTION = torch.finfo(torch.float32).eps
DEVIATIONS = 3  # below the mean of a channel, what ``absorbable`` takes for its least value


def equalization_scales(produced: Tensor, consumed: Tensor) -> Tensor:
    """s_i = sqrt(r1_i r2_i) / r2_i (equation 11): ``2 x [C] -> [C]``.

    Channel i between two layers is divided by s_i in the first layer and multiplied by it in the second, after which
    both ranges are sqrt(r1_i r2_i). A channel that either layer does not use keeps 1, and so does one that would need a
    factor beyond float32's resolution: what it carries is nothing beside the others, and must not become large.

    Args:
        produced: r1, range of the weights that make each channel, >= 0.
        consumed: r2, range of the weights that read it, >= 0.

    >>> equalization_scales(torch.tensor([8.0, 1.0, 0.0]), torch.tensor([2.0, 4.0, 5.0]))
    tensor([2.0000, 0.5000, 1.0000])
    """
    is_made = produced > 0
    is_read = consumed > 0
    used = is_made & is_read
    divisor = torch.where(used, consumed, 1.0)
    quotient = produced / divisor
    ratio = torch.where(used, quotient, 1.0)
    scales = ratio.sqrt()
    is_usable = (scales >= RESOLUTION) & (scales <= 1 / RESOLUTION)
    return torch.where(is_usable, scales, 1.0)


def output_ranges(weight: Tensor) -> Tensor:
    """Largest magnitude per output channel: ``[C_out, ...] -> [C_out]``."""
    magnitude = weight.abs()
    by_output = magnitude.flatten(1)
    return by_output.amax(1)


def input_ranges(weight: Tensor, groups: int = 1) -> Tensor:
    """Largest magnitude per input channel: ``[C_out, C_in / groups, ...] -> [C_in]``.

    >>> input_ranges(torch.tensor([[1.0, -3.0], [2.0, 0.5]]))
    tensor([2., 3.])
    """
    magnitude = weight.abs()
    by_group = magnitude.unflatten(0, (groups, -1))
    over_outputs = by_group.amax(1)
    inputs = groups * weight.shape[1]
    by_input = over_outputs.reshape(inputs, -1)
    return by_input.amax(1)


def scale_inputs(weight: Tensor, scales: Tensor, groups: int = 1) -> Tensor:
    """The weight with input channel i times ``scales[i]``: ``[C_out, C_in / groups, ...], [C_in]``, shape unchanged."""
    kernel_dims = weight.dim() - 2
    ones = [1] * kernel_dims
    per_group = scales.view(groups, 1, -1, *ones)
    by_group = weight.unflatten(0, (groups, -1))
    scaled = by_group * per_group
    return scaled.flatten(0, 1)


def absorbable(mean: Tensor, deviation: Tensor) -> Tensor:
    """What practically all values of a channel exceed, max(0, beta - 3 gamma) (section 4.1.3): ``2 x [C] -> [C]``.

    Of normally distributed values 0.13 % are not above c. For the others ReLU(x - c) = ReLU(x) - c.

    Args:
        mean: beta, of what a ReLU reads.
        deviation: gamma, its standard deviation, >= 0.

    >>> absorbable(torch.tensor([5.0, 1.0]), torch.tensor([1.0, 1.0])).tolist()
    [2.0, 0.0]
    """
    least = mean - DEVIATIONS * deviation
    return least.clamp_min(0)


def expected_output(weight: Tensor, mean_input: Tensor) -> Tensor:
    """E[W x] = W E[x], without bias: ``[C_out, ...], [groups, d] -> [C_out]``, d the elements of a row of the weight.

    The bias that quantisation brings in is E[W' x'] - E[W x] (equation 17); with x' = x it is (W' - W) E[x].

    >>> expected_output(torch.tensor([[1.0, 2.0], [0.0, -1.0]]), torch.tensor([[3.0, 1.0]]))
    tensor([ 5., -1.])
    """
    groups = len(mean_input)
    rows = weight.flatten(1)
    by_group = rows.unflatten(0, (groups, -1))
    columns = mean_input[:, :, None]
    # A product of each group's rows with the group's own inputs.
    outputs = by_group @ columns
    return outputs.flatten()
