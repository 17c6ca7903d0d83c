"""PyTorch's doors: the live network stays as it is, and its compressed weights are made once."""

import pytest
import torch
from torch.nn.utils import parametrize

from micronet_cli.artifact.engines.pytorch import PyTorch
from micronet_cli.layers.effective_weight import attach_mask
from tests.artifact.engines.linear_file import SHAPE, network

IMAGES = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))


def test_a_masked_network_answers_alike_with_plain_weights_and_stays_masked():
    model = network()
    attach_mask(model[0]).mask[1] = False
    with torch.no_grad():
        expected = model(IMAGES).numpy()
    opened = PyTorch().open(model, threads=1)
    assert opened.run(IMAGES.numpy()) == pytest.approx(expected, abs=1e-6)
    assert not parametrize.is_parametrized(opened.model[0])
    assert parametrize.is_parametrized(model[0])


def test_profile_has_the_products():
    found = PyTorch().profile(network(), 1, IMAGES.numpy(), runs=2)
    assert any("conv" in operation.kind for operation in found)


@pytest.mark.slow
@pytest.mark.skipif(not PyTorch(compiles=True).installed(), reason="needs a C++ compiler")
def test_a_compiled_network_answers_alike():
    model = network()
    opened = PyTorch(compiles=True).open(model, threads=1)
    with torch.no_grad():
        expected = model(IMAGES).numpy()
    assert opened.run(IMAGES.numpy()) == pytest.approx(expected, abs=1e-5)
