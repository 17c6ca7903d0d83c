"""Products of computed tensors are found where they are made; those with a parameter are layers, and left out."""

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from micronet_cli.trace.computed_products import computed_products

SHAPE = (1, 4, 4)


class Gram(nn.Module):
    """``x @ x.T`` behind a product with a parameter, which counts but is not named."""

    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.ones(4, 4))

    def forward(self, x):
        y = x @ self.matrix.T
        return y @ y.mT


class Asks(nn.Module):
    """A learned query: nothing of the image is in it, but it is computed."""

    def __init__(self):
        super().__init__()
        self.latent = nn.Parameter(torch.ones(1, 4))
        self.query = nn.Linear(4, 4)

    def forward(self, x):
        query = self.query(self.latent).expand(len(x), 1, 1, 4)
        return F.scaled_dot_product_attention(query, x, x)


class Around(nn.Module):
    """A product in the forward of a module that holds another one with products."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        y = self.inner(x)
        return y @ y


class Growing(nn.Module):
    """More products at each call."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        for _ in range(self.calls):
            x = x @ x
        return x


class Twice(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(self.inner(x))


class OfTorch(nn.Module):
    """Products inside a function of torch's."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        (x,) = x.unbind(1)
        return self.attention(x, x, x, need_weights=True)[0]


FOUND = {
    "a parameter's product counts": (nn.Sequential(Gram()), {"0": (2, 3)}, ()),
    "learned query": (nn.Sequential(Asks()), {"0": (0, 1, 2, 3)}, ()),
    "called twice": (Twice(Gram()), {"inner": (2, 3)}, ()),
    "layers alone": (nn.Sequential(nn.Linear(4, 4), nn.Conv2d(1, 1, 1)), {}, ()),
    "inside one another": (nn.Sequential(Around(Gram())), {"0.inner": (2, 3)}, ("0",)),
    "the network's own forward": (Gram(), {}, ("",)),
    "changing": (Twice(Growing()), {}, ("inner",)),
    "within torch": (OfTorch(), {}, ("attention",)),
}


@pytest.mark.parametrize("case", FOUND)
def test_products_are_found(case):
    model, operands, unreachable = FOUND[case]
    found = computed_products(model, SHAPE)
    assert (found.operands, found.unreachable) == (operands, unreachable)
    assert set(found.modules) == {*operands, *unreachable}


# test_vit and a network of each kind of attention.
TIMM = {
    "vit_tiny_patch16_224": 12,
    "deit_tiny_patch16_224": 12,
    "beit_base_patch16_224": 12,
    "swin_tiny_patch4_window7_224": 12,
    "cait_xxs24_224": 26,
    "xcit_nano_12_p16_224": 14,
    "vit_base_patch16_siglip_224": 13,
}


@pytest.mark.parametrize("name", TIMM)
def test_every_attention_of_timms_networks_is_found(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    found = computed_products(model, (3, 224, 224))
    assert found.unreachable == ()
    assert list(found.operands.values()) == [(0, 1, 2, 3)] * TIMM[name]
