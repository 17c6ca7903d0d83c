"""BatchNorm folding: which ones fold, and that outputs stay."""

import copy

import pytest
import timm
import torch
from timm.layers import StdConv2d
from torch import nn

from micronet_cli.compression.quantization.folding import fold_batch_norms
from micronet_cli.compression.quantization.quantizer import BitsRule, Quantizer
from micronet_cli.layers.batch_norm import gain_and_shift
from micronet_cli.layers.effective_weight import attach_mask
from micronet_cli.layers.fake_quantize import ActivationFakeQuantize, attach_output_fake_quantize
from micronet_cli.models import cifar_resnet  # noqa: F401  registers its networks
from micronet_cli.trace.batch_norm import batch_norm_pairs


def random_statistics(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, -1.5, 1.5)
            nn.init.normal_(module.bias)
    return model.eval()


def small() -> nn.Sequential:
    layers = (nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2))
    return random_statistics(nn.Sequential(*layers))


def test_gain_and_shift_by_hand():
    norm = nn.BatchNorm2d(1, eps=0.0).eval()
    norm.running_mean.fill_(3.0)
    norm.running_var.fill_(4.0)
    norm.weight.data.fill_(5.0)
    norm.bias.data.fill_(1.0)
    gain, shift = gain_and_shift(norm)
    assert (gain.tolist(), shift.tolist()) == ([2.5], [-6.5])


def test_gain_and_shift_without_affine_parameters():
    norm = nn.BatchNorm2d(1, eps=0.0, affine=False).eval()
    norm.running_mean.fill_(3.0)
    gain, shift = gain_and_shift(norm)
    assert (gain.tolist(), shift.tolist()) == ([1.0], [-3.0])


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


class Read(nn.Module):
    """A convolution whose output goes elsewhere too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        x = self.conv(x)
        return self.norm(x) + x


def test_an_output_with_another_reader_does_not_fold():
    assert batch_norm_pairs(Read(), (3, 4, 4)) == {}


def test_a_shared_norm_does_not_fold():
    norm = nn.BatchNorm2d(3)
    assert batch_norm_pairs(nn.Sequential(nn.Conv2d(3, 3, 1), norm, nn.Conv2d(3, 3, 1), norm), (3, 4, 4)) == {}


def test_a_weight_that_is_standardised_or_shared_does_not_fold():
    assert batch_norm_pairs(nn.Sequential(StdConv2d(3, 3, 1), nn.BatchNorm2d(3)), (3, 4, 4)) == {}
    tied = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1))
    assert batch_norm_pairs(tied, (3, 4, 4)) == {"1": "0"}
    tied[2].weight = tied[0].weight
    assert batch_norm_pairs(tied, (3, 4, 4)) == {}


def test_a_quantised_output_does_not_fold():
    model = small()
    attach_output_fake_quantize(model[0], ActivationFakeQuantize(4))
    assert batch_norm_pairs(model, (3, 8, 8)) == {"4": "3"}


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


def test_finding_pairs_leaves_the_network_as_it_was():
    model = small().train()
    twin = copy.deepcopy(model)
    batch_norm_pairs(model, (3, 8, 8))
    assert model.training
    assert model[1].training
    assert not model[0]._forward_hooks
    assert not model[1]._forward_pre_hooks
    for one, other in zip(model.state_dict().values(), twin.state_dict().values(), strict=True):
        assert torch.equal(one, other)
