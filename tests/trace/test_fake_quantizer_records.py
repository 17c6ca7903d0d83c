"""torch's fake-quantise operators in a trace: activations become a conversion, weights a tensor in codes."""

import torch
from torch import nn

from micronet_cli.trace.observe import record
from micronet_cli.trace.trace import Trace
from tests.trace.written_out import SHAPE, Written


class WeightInCodes(nn.Module):
    def __init__(self, quantize):
        super().__init__()
        self.quantize = quantize
        self.conv = nn.Conv2d(2, 4, 1, bias=False)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x):
        weight = self.quantize(self.conv.weight)
        return self.norm(nn.functional.conv2d(x, weight))


def fused(x, enabled):
    one = torch.ones(1)
    ends = [torch.zeros(1), torch.ones(1)]
    return torch.fused_moving_avg_obs_fake_quant(
        x, torch.tensor([0]), torch.tensor([enabled]), *ends, one, torch.zeros(1).int(), 0.01, 0, 15, 0, False, False
    )


def test_an_activation_is_converted():
    model = Written(lambda x, step: torch.fake_quantize_per_tensor_affine(x, 0.1, 3, 0, 15))
    recorder, network = record(model, SHAPE)
    assert [op.kind for op in network.ops] == ["quantize", "convolution"]
    (name,) = network.values[1].quantizers
    quantizer = recorder.conversions.quantizers[name]
    assert (quantizer.bits, quantizer.stored_bits, quantizer.codes) == (4, 64, (-3, 12))


def test_one_that_is_switched_off_hands_its_input_on():
    network = Trace(Written(lambda x, step: fused(x, 0)), SHAPE).read()
    assert [op.kind for op in network.ops] == ["clone", "convolution"]
    assert network.quantizers == {}


def test_one_scale_a_channel_is_left_as_it_is():
    def in_channels(x, step):
        return torch.fake_quantize_per_channel_affine(x, torch.ones(2), torch.zeros(2).int(), 1, 0, 15)

    network = Trace(Written(in_channels), SHAPE).read()
    assert network.quantizers == {}
    assert network.value_bits[network.ops[-1].inputs[0]] == 32


def test_a_weight_keeps_its_name_and_its_batch_norm_folds():
    model = WeightInCodes(lambda weight: torch.fake_quantize_per_tensor_affine(weight, 0.1, 0, -8, 7))
    network = Trace(model, SHAPE).read()
    (product,) = network.ops
    weight = network.stored[product.dot.weight]
    assert (weight.name, weight.layer, weight.derived) == ("conv.weight", "conv", False)
    assert network.stored_bits[product.dot.weight] == 4


def test_a_weights_quantiser_that_is_switched_off_leaves_the_parameter():
    network = Trace(WeightInCodes(lambda weight: fused(weight, 0)), SHAPE).read()
    (product,) = network.ops
    assert network.stored_bits[product.dot.weight] == 32
    assert network.stored[product.dot.weight].name == "conv.weight"
