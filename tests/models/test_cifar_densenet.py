"""DenseNet-BC-100 is the paper's: size, products, block widths."""

import pytest
import timm
import torch

from micronet_cli.models.model import InputSpec, Model

NAME = "densenet_bc100_k12"


@pytest.fixture(scope="module")
def model():
    return Model(NAME).build()


def products(model):
    """Multiplications of one image, counted layer by layer."""
    counts = []

    def count(layer, inputs, output):
        counts.append(output.numel() * layer.weight[0].numel())

    layers = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    model(torch.zeros(1, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    return sum(counts)


def test_size_is_the_papers(model):
    """Table 2 of arXiv 1608.06993: 0.8 M parameters for CIFAR."""
    assert sum(p.numel() for p in model.parameters()) == 800_032
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 100)


def test_products_are_those_of_the_papers_widths(model):
    """Every bottleneck reads what all before it made, and transitions halve the channels."""
    wanted = 3 * 24 * 9 * 32**2
    width, side = 24, 32
    for block in range(3):
        for _ in range(16):
            wanted += (width * 48 + 48 * 12 * 9) * side**2
            width += 12
        if block < 2:
            wanted += width * (width // 2) * side**2
            width, side = width // 2, side // 2
    wanted += width * 100
    assert products(model) == wanted == 287_960_472


def test_depth_counts_convolutions_and_the_classifier(model):
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(layers) == 100


def test_a_bottleneck_keeps_what_it_reads():
    bottleneck = timm.create_model(NAME).eval().dense1[0]
    x = torch.rand(1, 24, 4, 4)
    out = bottleneck(x)
    assert out.shape == (1, 36, 4, 4)
    assert torch.equal(out[:, :24], x)


def test_timm_knows_the_input_the_stem_and_the_classifier(model):
    assert InputSpec.of(model).size == (3, 32, 32)
    assert model.get_classifier() is model.fc
    assert model.pretrained_cfg["first_conv"] == "conv1"
