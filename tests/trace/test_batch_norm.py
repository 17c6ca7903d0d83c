"""Which BatchNorms fold into the product before them, by records and by name."""

import copy

import torch
import torch.nn.functional as F
from timm.layers import StdConv2d
from torch import nn

from micronet_cli.layers.batch_norm import gain_and_shift
from micronet_cli.layers.fake_quantize import ActivationFakeQuantize, attach_output_fake_quantize
from micronet_cli.models import cifar_resnet  # noqa: F401  registers its networks
from micronet_cli.trace.batch_norm import batch_norm_pairs, folding_norms, normalised_products
from micronet_cli.trace.observe import observe


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


TOKENS = 4


class Tokens(nn.Module):
    """As many tokens as channels: [1, C, H, W] -> a linear layer on [1, L, C] -> a BatchNorm of ``use``'s."""

    def __init__(self, use):
        super().__init__()
        self.linear, self.norm, self.use = nn.Linear(4, 4, bias=False), nn.BatchNorm1d(4), use

    def forward(self, x):
        return self.use(self.norm, self.linear(x.flatten(2).transpose(1, 2)))


def pairs(model):
    return batch_norm_pairs(model, (4, 2, TOKENS // 2))


def test_a_norm_over_flattened_tokens_folds():
    assert pairs(Tokens(lambda norm, y: norm(y.flatten(0, 1)).reshape_as(y))) == {"norm": "linear"}


def test_a_norm_over_transposed_outputs_folds():
    assert pairs(Tokens(lambda norm, y: norm(y.transpose(1, 2)))) == {"norm": "linear"}


def test_a_norm_over_as_many_tokens_does_not_fold():
    assert pairs(Tokens(lambda norm, y: norm(y))) == {}


def test_a_linear_layer_with_a_bias_on_transposed_tokens_is_left_alone():
    model = Tokens(lambda norm, y: norm(y.flatten(0, 1)).reshape_as(y))
    model.linear = nn.Linear(4, 4)
    # Torch splits the layer into a product and an add there, and the add is what the norm reads.
    assert pairs(model) == {}
    kinds = [op.kind for op in observe(model, (4, 2, TOKENS // 2)).ops]
    assert kinds == ["mm", "add", "native_batch_norm"]


def test_a_norm_that_runs_twice_with_its_layer_folds():
    block = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    assert batch_norm_pairs(nn.Sequential(block, nn.ReLU(), block), (3, 4, 4)) == {"0.1": "0.0"}


def test_a_functional_norm_folds_in_the_records_but_has_no_name():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)
            self.register_buffer("mean", torch.zeros(3))
            self.register_buffer("var", torch.ones(3))

        def forward(self, x):
            return F.batch_norm(self.conv(x), self.mean, self.var)

    assert folding_norms(observe(Functional(), (3, 4, 4))) == {1: 0}
    assert batch_norm_pairs(Functional(), (3, 4, 4)) == {}


def test_a_product_and_the_norm_behind_it_are_named_even_where_it_does_not_fold():
    network = observe(nn.Sequential(StdConv2d(3, 3, 1), nn.BatchNorm2d(3)), (3, 4, 4))
    assert len(normalised_products(network)) == 1
    assert folding_norms(network) == {}
