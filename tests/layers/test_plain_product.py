"""Which layers are the plain product with their weight."""

import pytest
import timm.layers
from torch import nn

from micronet_cli.layers.plain_product import runs_linear


class Scaled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class Renamed(nn.Conv2d):
    pass


PLAIN = [
    nn.Conv1d(1, 1, 1), nn.Conv2d(1, 1, 1), nn.Conv3d(1, 1, 1), nn.Linear(1, 1), timm.layers.Conv2dSame(1, 1, 1),
    timm.layers.Linear(1, 1), Renamed(1, 1, 1),
]  # fmt: skip


@pytest.mark.parametrize("layer", PLAIN, ids=lambda layer: type(layer).__name__)
def test_plain_products_are_recognised(layer):
    assert runs_linear(layer)


@pytest.mark.parametrize(
    "layer", [Scaled(1, 1), nn.ConvTranspose2d(1, 1, 1), nn.BatchNorm2d(1)], ids=lambda layer: type(layer).__name__
)
def test_a_forward_of_its_own_is_no_plain_product(layer):
    assert not runs_linear(layer)
