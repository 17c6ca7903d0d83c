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
    pixel = pixel.flatten(1)
    # What is read one after the other lies together: all channels of a pixel, or a whole plane.
    if groups == 1:
        channels_last = padded.permute(0, 2, 3, 1)
        pixels = channels_last.reshape(-1, channels)
        patches = pixels[pixel]  # [n, kH kW, C]
        return patches.transpose(1, 2).flatten(1)[None]
    planes = padded.transpose(0, 1).flatten(1)
    patches = planes[:, pixel]  # [C, n, kH kW]
    by_group = patches.unflatten(0, (groups, -1))
    return by_group.transpose(1, 2).flatten(2)
