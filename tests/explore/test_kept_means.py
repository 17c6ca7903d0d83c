"""Guards layers that keep the means of their outputs: in value, in the gradient, and only inside the block."""

import torch
from torch import nn

from micronet_cli.explore.kept_means import kept_means


@torch.no_grad()
def test_an_output_keeps_the_mean_of_its_first_run():
    torch.manual_seed(0)
    conv, linear = nn.Conv2d(2, 3, 1), nn.Linear(4, 2)
    images, rows = torch.randn(5, 2, 4, 4), torch.randn(5, 7, 4)
    in_conv, in_linear = conv(images), linear(rows)
    with kept_means({"conv": conv, "linear": linear}):
        assert torch.equal(conv(images), in_conv)
        assert torch.equal(linear(rows), in_linear)
        changed_conv, changed_linear = conv(3 * images + 1), linear(rows.square())
    torch.testing.assert_close(changed_conv.mean((0, 2, 3)), in_conv.mean((0, 2, 3)))
    torch.testing.assert_close(changed_linear.mean((0, 1)), in_linear.mean((0, 1)))
    plain = conv(3 * images + 1)
    difference = plain - changed_conv
    torch.testing.assert_close(difference, difference[:1, :, :1, :1].expand_as(difference))
    assert not torch.allclose(plain, changed_conv)


def test_a_mean_has_no_part_in_the_gradient():
    layer = nn.Linear(3, 2)
    images = torch.randn(4, 3, requires_grad=True)
    with kept_means({"layer": layer}):
        layer(images).sum().backward()
    torch.testing.assert_close(images.grad, torch.zeros(4, 3))
