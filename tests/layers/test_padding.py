"""A convolution is the one without padding of what ``padded`` gives."""

import pytest
import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from torch import nn

from micronet_cli.layers.padding import padded, pads_zeros

LAYERS = {
    "none": nn.Conv2d(2, 3, 3),
    "uneven": nn.Conv2d(2, 3, (2, 4), padding="same"),
    "reflect": nn.Conv2d(2, 3, 3, padding=(2, 1), padding_mode="reflect"),
    "circular": nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"),
    "replicate": nn.Conv2d(2, 3, 3, padding=1, padding_mode="replicate", stride=2),
    "as TensorFlow": Conv2dSame(2, 3, 3, stride=2, dilation=2),
}

BESIDE_ZEROS = {
    "uneven": nn.Conv2d(2, 3, (2, 4), padding="same"),
    "one pixel": nn.Conv2d(2, 3, 1, padding=1),
    "as TensorFlow": Conv2dSame(2, 3, (1, 3)),
}
NOT_BESIDE_ZEROS = {
    "none": nn.Conv2d(2, 3, 3),
    "same for one pixel": nn.Conv2d(2, 3, 1, padding="same"),
    "reflect": nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"),
    "as TensorFlow for one pixel": Conv2dSame(2, 3, 1, stride=2),
    "linear": nn.Linear(2, 3),
}


@pytest.mark.parametrize("layer", BESIDE_ZEROS.values(), ids=BESIDE_ZEROS)
def test_zeros_are_padded(layer):
    assert pads_zeros(layer)


@pytest.mark.parametrize("layer", NOT_BESIDE_ZEROS.values(), ids=NOT_BESIDE_ZEROS)
def test_no_zeros_are_padded(layer):
    assert not pads_zeros(layer)


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
@torch.no_grad()
def test_what_is_padded_needs_no_padding(layer):
    x = torch.randn(2, 2, 7, 8)
    made = F.conv2d(padded(layer, x), layer.weight, layer.bias, layer.stride, 0, layer.dilation)
    torch.testing.assert_close(made, layer(x))


def test_what_needs_no_padding_is_not_copied():
    x = torch.randn(2, 2, 7, 8)
    assert padded(nn.Conv2d(2, 3, 1), x) is x
