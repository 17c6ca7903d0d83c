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
    number = torch.arange(len(images), device=images.device)[:, None, None, None]
    down, across = (torch.arange(k, device=images.device) * d for k, d in zip(kernel, dilation, strict=True))
    y = (rows * stride[0])[:, :, None, None] + down[:, None]
    x = (columns * stride[1])[:, :, None, None] + across
    return padded[number, :, y, x].flatten(0, 1).permute(0, 3, 1, 2)
