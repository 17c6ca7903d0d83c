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
    height, width = kernel
    down = torch.arange(height, device=device) * dilation[0]
    across = torch.arange(width, device=device) * dilation[1]
    top = rows * stride[0]
    left = columns * stride[1]
    # All indices broadcast to [N, P, kH, kW].
    number = torch.arange(len(images), device=device)
    image = number[:, None, None, None]
    y = top[:, :, None, None] + down[:, None]
    x = left[:, :, None, None] + across
    channels_last = padded[image, :, y, x]
    patches = channels_last.flatten(0, 1)
    return patches.permute(0, 3, 1, 2)
