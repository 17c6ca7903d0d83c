"""What a convolution sees at some of its output positions."""

from collections.abc import Sequence

import torch
from torch import Tensor


def sampled_patches(
    padded: Tensor,
    groups: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    images: Tensor,
    rows: Tensor,
    columns: Tensor,
) -> Tensor:
    """The inputs of sums of products: ``[N, C, H, W] -> [groups, n, C / groups kH kW]``.

    Args:
        padded: what the convolution reads, with its padding.
        groups: of the convolution.
        kernel: (height, width), as are ``stride`` and ``dilation``.
        stride: of the convolution.
        dilation: of the convolution.
        images: numbers of the images, int64 ``[n]``.
        rows: of the output positions, int64 ``[n]``.
        columns: of the output positions, int64 ``[n]``.
    """
    _, channels, image_height, image_width = padded.shape
    height, width = kernel
    device = padded.device
    down = torch.arange(height, device=device) * dilation[0]
    across = torch.arange(width, device=device) * dilation[1]
    # All indices broadcast to [n, kH, kW].
    image = images[:, None, None]
    y = rows[:, None, None] * stride[0] + down[:, None]
    x = columns[:, None, None] * stride[1] + across
    pixel = (image * image_height + y) * image_width + x
    # All channels of a pixel lie together: channels last is read without a copy of the whole.
    pixels = padded.permute(0, 2, 3, 1).reshape(-1, channels)
    patches = pixels.index_select(0, pixel.flatten())
    by_position = patches.view(len(images), height * width, channels)
    by_group = by_position.unflatten(2, (groups, -1))  # [n, kH kW, groups, C / groups]
    return by_group.permute(2, 0, 3, 1).flatten(2)
