"""What a convolution sees at some of its output positions."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def sampled_patches(
    images: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    rows: Tensor,
    columns: Tensor,
) -> Tensor:
    """The inputs of sums of products: ``[N, C, H, W] -> [N * P, C, kH, kW]``.

    Args:
        images: what the convolution reads.
        kernel: (height, width), as are ``stride`` and ``dilation``.
        stride: of the convolution.
        dilation: of the convolution.
        padding: zeros at (left, right, top, bottom).
        rows: of the output positions, int64 ``[N, P]``.
        columns: of the output positions, int64 ``[N, P]``.
    """
    padded = F.pad(images, tuple(padding))
    device = images.device
    number = torch.arange(len(images), device=device)
    down = torch.arange(kernel[0], device=device) * dilation[0]
    across = torch.arange(kernel[1], device=device) * dilation[1]
    top = rows * stride[0]
    left = columns * stride[1]
    # All indices broadcast to [N, P, kH, kW].
    y = top[:, :, None, None] + down[:, None]
    x = left[:, :, None, None] + across
    patches = padded[number[:, None, None, None], :, y, x]
    return patches.flatten(0, 1).permute(0, 3, 1, 2)
