"""Patches against torch's own convolution."""

import pytest
import torch
import torch.nn.functional as F

from micronet_cli.functional.patches import sampled_patches


def test_one_patch_by_hand():
    images = torch.arange(18.0).view(2, 1, 3, 3)
    position = torch.tensor([1]), torch.tensor([0]), torch.tensor([1])
    found = sampled_patches(images, 1, (2, 2), (1, 1), (1, 1), *position)
    assert found.tolist() == [[[10, 11, 13, 14]]]
    found = sampled_patches(images, 1, (1, 2), (1, 1), (1, 2), torch.tensor([0]), torch.tensor([2]), torch.tensor([0]))
    assert found.tolist() == [[[6, 8]]]


def test_groups_come_apart_by_hand():
    images = torch.arange(16.0).view(1, 4, 2, 2)
    positions = torch.tensor([0, 0]), torch.tensor([0, 1]), torch.tensor([1, 0])
    found = sampled_patches(images, 2, (1, 1), (1, 1), (1, 1), *positions)
    assert found.tolist() == [[[1, 5], [2, 6]], [[9, 13], [10, 14]]]


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
    image, row, column = (torch.randint(size, (12,)) for size in (2, *whole.shape[2:]))
    padded = F.pad(images, (pad,) * 4)
    (patches,) = sampled_patches(padded, 1, (kernel,) * 2, (stride,) * 2, (dilation,) * 2, image, row, column)
    assert torch.allclose(patches @ weight.flatten(1).T, whole[image, :, row, column], atol=1e-4)


def test_height_and_width_have_settings_of_their_own():
    torch.manual_seed(0)
    padded, weight = torch.randn(1, 2, 10, 10), torch.randn(3, 2, 2, 3)
    whole = F.conv2d(padded, weight, None, (2, 1), 0, (1, 2))
    image, row, column = torch.tensor([0, 0, 0]), torch.tensor([0, 4, 2]), torch.tensor([5, 0, 3])
    (patches,) = sampled_patches(padded, 1, (2, 3), (2, 1), (1, 2), image, row, column)
    assert patches.shape == (3, 12)
    assert torch.allclose(patches @ weight.flatten(1).T, whole[image, :, row, column], atol=1e-5)
