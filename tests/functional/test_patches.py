"""Patches against torch's own convolution."""

import pytest
import torch
import torch.nn.functional as F

from micronet_cli.functional.patches import sampled_patches


def test_one_patch_by_hand():
    images = torch.arange(9.0).view(1, 1, 3, 3)
    position = torch.tensor([[0]]), torch.tensor([[1]])
    found = sampled_patches(images, (2, 2), (1, 1), (1, 1), (0, 0, 0, 0), *position)
    assert found.tolist() == [[[[1, 2], [4, 5]]]]
    found = sampled_patches(images, (2, 2), (1, 1), (1, 1), (0, 0, 1, 0), *position)
    assert found.tolist() == [[[[0, 0], [1, 2]]]]


CONVOLUTIONS = {
    "plain": (3, 1, 1, 1),
    "strided": (3, 2, 1, 1),
    "pointwise": (1, 1, 1, 0),
    "dilated": (3, 1, 2, 2),
}


@pytest.mark.parametrize(("kernel", "stride", "dilation", "pad"), CONVOLUTIONS.values(), ids=CONVOLUTIONS.keys())
def test_products_with_patches_are_the_convolution(kernel, stride, dilation, pad):
    torch.manual_seed(0)
    images, weight = torch.randn(2, 4, 7, 9), torch.randn(5, 4, kernel, kernel)
    whole = F.conv2d(images, weight, None, stride, pad, dilation)
    rows, columns = (torch.randint(size, (2, 6)) for size in whole.shape[2:])
    patches = sampled_patches(images, (kernel,) * 2, (stride,) * 2, (dilation,) * 2, (pad,) * 4, rows, columns)
    wanted = whole[torch.arange(2)[:, None], :, rows, columns].flatten(0, 1)
    assert torch.allclose(patches.flatten(1) @ weight.flatten(1).T, wanted, atol=1e-4)


def test_height_and_width_have_settings_of_their_own():
    torch.manual_seed(0)
    images, weight = torch.randn(1, 2, 8, 9), torch.randn(3, 2, 2, 3)
    padded = F.pad(images, (1, 0, 0, 2))  # left, right, top, bottom
    whole = F.conv2d(padded, weight, None, (2, 1), 0, (1, 2))
    rows, columns = torch.tensor([[0, 4, 2]]), torch.tensor([[5, 0, 3]])
    patches = sampled_patches(images, (2, 3), (2, 1), (1, 2), (1, 0, 0, 2), rows, columns)
    assert patches.shape == (3, 2, 2, 3)
    assert torch.allclose(patches.flatten(1) @ weight.flatten(1).T, whole[0, :, rows[0], columns[0]].T, atol=1e-5)
