"""Deep copies of networks whose modules keep tensors that a forward pass computed."""

import pytest
import torch
from torch import nn

from micronet_cli.layers.copies import computed_tensors, copied


class Caching(nn.Module):
    """Keeps what it computed, as LeViT keeps its gathered biases."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.ones(2))
        self.cache = {}

    def forward(self, x):
        self.cache["bias"] = self.bias * 2
        return x + self.cache["bias"]


def weight_normed():
    return nn.Sequential(nn.utils.weight_norm(nn.Linear(2, 2)))


NETWORKS = {
    "cache": Caching,
    "weight_norm": weight_normed,
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_a_network_that_keeps_computed_tensors_is_copied(make):
    model = make()
    x = torch.ones(1, 2)
    expected = model(x)
    twin = copied(model)
    assert torch.equal(twin(x), expected)
    with torch.no_grad():
        next(twin.parameters()).fill_(5)
    assert torch.equal(model(x), expected)


def test_kept_tensors_are_detached_in_the_copy():
    model = Caching()
    model(torch.ones(1, 2))
    twin = copied(model)
    assert twin.cache["bias"].tolist() == [2, 2]
    assert twin.cache["bias"].is_leaf
    assert not model.cache["bias"].is_leaf


def test_a_network_without_such_tensors_needs_nothing():
    assert computed_tensors(nn.Sequential(nn.Linear(2, 2))) == {}
