"""Which layers have a weight that can be rescaled: theirs alone, read by their own product as it is."""

import pytest
from timm.layers import StdConv2d
from torch import nn
from torch.nn.utils import parametrizations

from micronet_cli.layers.effective_weight import attach_mask
from micronet_cli.trace.observe import observe
from micronet_cli.trace.own_weights import own_weights


def own(model):
    return own_weights(observe(model, (3, 4, 4)), model)


def masked():
    layer = nn.Conv2d(3, 3, 1)
    attach_mask(layer).mask[0] = False
    return layer


AS_STORED = {
    "plain": lambda: nn.Conv2d(3, 3, 1),
    "masked": masked,
}
COMPUTED = {
    "standardised": lambda: StdConv2d(3, 3, 1),
    "weight_norm": lambda: parametrizations.weight_norm(nn.Conv2d(3, 3, 1)),
}


@pytest.mark.parametrize("make", AS_STORED.values(), ids=AS_STORED)
def test_a_weight_that_is_used_as_it_is_stored_is_the_layers_own(make):
    assert own(nn.Sequential(make())) == {"0"}


@pytest.mark.parametrize("make", COMPUTED.values(), ids=COMPUTED)
def test_a_weight_that_is_computed_is_not_the_layers_own(make):
    assert own(nn.Sequential(make())) == set()


@pytest.mark.parametrize("key", ["weight", "bias"])
def test_a_tied_tensor_is_nobodys_own(key):
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
    setattr(model[1], key, getattr(model[0], key))
    assert own(model) == {"2"}


def test_a_layer_that_runs_twice_keeps_its_own_weight():
    layer = nn.Conv2d(3, 3, 1)
    assert own(nn.Sequential(layer, nn.ReLU(), layer)) == {"0"}


def test_a_weight_that_something_else_reads_is_not_its_own():
    class Regularised(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.other = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return self.other(self.conv(x)) * self.conv.weight[0, 0, 0]

    assert own(Regularised()) == {"other"}


def test_a_layer_that_is_never_executed_has_none():
    model = nn.Sequential(nn.Conv2d(3, 3, 1))
    model[0].unused = nn.Linear(2, 2)
    assert own(model) == {"0"}
