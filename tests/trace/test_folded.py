"""A traced network as it is deployed: folded BatchNorms are a bias, the others a scale and a bias."""

import torch.nn.functional as F
from torch import nn

from micronet_cli.trace.folded import fold_batch_norms
from micronet_cli.trace.observe import observe


def conv():
    return nn.Conv2d(3, 3, 1, bias=False)


def folded(*layers):
    return fold_batch_norms(observe(nn.Sequential(*layers), (3, 4, 4)))


def test_a_folded_norm_is_a_bias_of_its_product():
    network = folded(conv(), nn.BatchNorm2d(3), nn.ReLU())
    product, relu = network.ops
    bias = network.stored[product.dot.bias]
    assert (bias.name, bias.layer, bias.elements, bias.folded) == ("0.bias (folded 1)", "0", 3, True)
    assert product.outputs == relu.inputs
    assert network.used == (0, product.dot.bias)


def test_a_norm_that_stays_reads_a_scale_and_a_bias():
    network = folded(nn.BatchNorm2d(3), conv())
    norm, _ = network.ops
    names = [network.stored[index].name for index in norm.parameters]
    assert (norm.kind, names, len(norm.outputs)) == ("batch_norm", ["0.scale", "0.bias"], 1)


def test_a_norm_without_parameters_stores_as_many_as_channels():
    network = folded(nn.BatchNorm2d(3, affine=False), conv())
    assert [network.stored[index].elements for index in network.ops[0].parameters] == [3, 3]


def test_spans_of_modules_close_up_behind_a_norm_that_left():
    network = folded(conv(), nn.BatchNorm2d(3), nn.ReLU(), nn.BatchNorm2d(3))
    spans = {call.module: (call.first, call.end) for call in network.calls}
    assert spans == {"0": (0, 1), "1": (1, 1), "2": (1, 2), "3": (2, 3), "": (0, 3)}
    assert network.ends == {"0": 1, "1": 1, "2": 2, "3": 3, "": 3}


def test_a_block_that_runs_twice_stores_its_bias_once():
    block = nn.Sequential(conv(), nn.BatchNorm2d(3))
    network = folded(block, nn.ReLU(), block)
    first, _, last = network.ops
    assert first.dot.bias == last.dot.bias
    assert sum(stored.folded for stored in network.stored) == 1


def test_a_norm_that_runs_twice_and_stays_stores_its_scale_once():
    norm = nn.BatchNorm2d(3)
    network = folded(norm, nn.ReLU(), norm)
    assert network.ops[0].parameters == network.ops[2].parameters


class Relayed(nn.Module):
    """A product, a copy in a new order, then the BatchNorm."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3, bias=False)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x):
        y = self.linear(x.permute(0, 2, 3, 1))
        return F.relu(self.norm(y.permute(0, 3, 1, 2).contiguous()))


def test_what_stands_between_makes_the_output_of_the_norm():
    network = fold_batch_norms(observe(Relayed(), (3, 4, 4)))
    assert network.ops[-2].outputs == network.ops[-1].inputs
    assert [op.dot.bias is not None for op in network.ops if op.dot] == [True]


def test_a_network_without_norms_stays_as_it_is():
    network = observe(nn.Sequential(conv(), nn.ReLU()), (3, 4, 4))
    assert fold_batch_norms(network).ops == network.ops
    assert fold_batch_norms(network).stored == network.stored
