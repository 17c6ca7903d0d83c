"""BatchNorms fold into layers: outputs stay, masks stay, and quantised layers are refused."""

import pytest
import timm
import torch
from torch import nn

from micronet_cli.compression.quantization.folding import fold_batch_norms
from micronet_cli.compression.quantization.quantizer import BitsRule, Quantizer
from micronet_cli.layers.effective_weight import attach_mask
from micronet_cli.layers.fake_quantize import ActivationFakeQuantize, attach_output_fake_quantize
from micronet_cli.models import cifar_resnet  # noqa: F401  registers its networks
from tests.trace.test_batch_norm import random_statistics, small


@pytest.mark.parametrize("name", ["resnet8", "tf_efficientnet_b0", "levit_128s", "densenet121", "resnetv2_50"])
def test_outputs_stay_and_the_norms_are_gone(name):
    model = random_statistics(timm.create_model(name, num_classes=10)).double()
    size = (3, 32, 32) if name == "resnet8" else model.pretrained_cfg["input_size"]
    norms = sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
    images = torch.randn(1, *size, dtype=torch.float64)
    with torch.no_grad():
        before = model(images)
        pairs = fold_batch_norms(model, size)
        torch.testing.assert_close(model(images), before, rtol=1e-9, atol=1e-9)
    assert norms - sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules()) == len(pairs) > 0


def test_a_masked_weight_stays_zero():
    model = small()
    parts = attach_mask(model[0])
    parts.mask[:, 0] = False
    images = torch.randn(2, 3, 8, 8)
    before = model(images)
    fold_batch_norms(model, (3, 8, 8))
    assert not model[0].weight[:, 0].any()
    torch.testing.assert_close(model(images), before)


def test_an_output_quantiser_of_a_norm_stays():
    model = small()
    attach_output_fake_quantize(model[4], ActivationFakeQuantize(2))
    model[4].output_fake_quantize.observe(torch.tensor([-3.0, 3.0]))
    images = torch.randn(2, 3, 8, 8)
    before = model(images)
    fold_batch_norms(model, (3, 8, 8))
    torch.testing.assert_close(model(images), before)
    assert before.unique().numel() <= 4


def test_a_quantised_layer_is_refused():
    model = small()
    Quantizer({"all": BitsRule(".*")}).attach(model)
    with pytest.raises(ValueError, match="0 is quantised already"):
        fold_batch_norms(model, (3, 8, 8))


@pytest.mark.parametrize(
    ("bias", "expected"), [pytest.param(None, -6.5, id="no bias"), pytest.param(2.0, -1.5, id="a bias is scaled")]
)
def test_one_channel_by_hand(bias, expected):
    layer, norm = nn.Linear(1, 1, bias=bias is not None), nn.BatchNorm1d(1, eps=0.0)
    layer.weight.data.fill_(3.0)
    if bias is not None:
        layer.bias.data.fill_(bias)
    norm.running_mean.fill_(3.0)
    norm.running_var.fill_(4.0)
    norm.weight.data.fill_(5.0)
    norm.bias.data.fill_(1.0)
    model = nn.Sequential(nn.Flatten(), layer, norm).eval()
    assert fold_batch_norms(model, (1, 1, 1)) == {"2": "1"}
    assert model[1].weight.item() == 7.5
    assert model[1].bias.item() == expected


def test_a_network_without_norms_is_left_alone():
    model = nn.Sequential(nn.Conv2d(3, 2, 1, bias=False))
    weight = model[0].weight.clone()
    assert fold_batch_norms(model, (3, 4, 4)) == {}
    assert torch.equal(model[0].weight, weight)
    assert model[0].bias is None
