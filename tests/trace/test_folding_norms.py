"""Which BatchNorms fold where the layout, the weight or the executions are out of the ordinary."""

import torch
import torch.nn.functional as F
from torch import nn

from micronet_cli.trace.batch_norm import batch_norm_pairs, folding_norms
from micronet_cli.trace.observe import observe

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
