"""The CIFAR ResNets are the paper's: sizes, shortcuts, input."""

import pytest
import timm
import torch

from micronet_cli.models.model import InputSpec, Model


@pytest.mark.parametrize(
    ("name", "parameters"), [("resnet20", 269_722), ("resnet32", 464_154), ("resnet44", 658_586), ("resnet56", 853_018)]
)
def test_cifar_resnets_have_the_papers_size(name, parameters):
    # Table 6 of arXiv 1512.03385: 0.27, 0.46, 0.66, 0.85 M.
    model = Model(name).build()
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_shortcut_subsamples_and_pads():
    block = timm.create_model("resnet8").layer2[0]
    for parameter in block.parameters():
        torch.nn.init.zeros_(parameter)
    x = torch.rand(1, 16, 8, 8)
    out = block.eval()(x)
    assert torch.equal(out[:, 8:24], x[:, :, ::2, ::2])
    assert out[:, :8].abs().sum() == out[:, 24:].abs().sum() == 0


def test_cifar_resnets_take_the_image_as_it_is():
    spec = InputSpec.of(Model("resnet20").build())
    assert (spec.size, spec.crop_pct) == ((3, 32, 32), 1.0)
