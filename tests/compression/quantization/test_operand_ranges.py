"""Operand quantisers get their ranges from the float network, which goes on in float and is left as it was."""

import copy

import torch
from torch import nn

from micronet_cli.compression.quantization.operand_ranges import operands_shown
from micronet_cli.layers.fake_quantize import ActivationFakeQuantize
from micronet_cli.layers.products import attach_operand_fake_quantize, operand_fake_quantizers


class Gram(nn.Module):
    def forward(self, x):
        return x @ x.mT


X = torch.tensor([[[1.0, 0.25], [-0.5, 0.0]]])


def test_each_quantiser_sees_its_operand_of_the_float_network():
    reference = nn.Sequential(Gram(), Gram())
    model = copy.deepcopy(reference)
    for module in model:
        for number in (0, 1):
            attach_operand_fake_quantize(module, number, ActivationFakeQuantize(2))
    expected = reference(X)
    with operands_shown(model, reference, lambda module, name: getattr(module, name).train()):
        assert torch.equal(reference(X), expected)
    assert all(operand_fake_quantizers(module) == {} for module in reference)
    assert torch.equal(reference(X), expected)
    ranges = [
        (float(quantizer.low), float(quantizer.high))
        for module in model
        for quantizer in operand_fake_quantizers(module).values()
    ]
    # Two bits would have rounded the first product, [[1.0625, -0.5], [-0.5, 0.25]].
    assert ranges == [(-0.5, 1.0)] * 2 + [(-0.5, 1.0625)] * 2


def test_what_tracks_no_range_is_shown_nothing():
    reference = nn.Sequential(Gram())
    model = copy.deepcopy(reference)
    attach_operand_fake_quantize(model[0], 0, nn.Identity())
    with operands_shown(model, reference, lambda module, name: None):
        assert operand_fake_quantizers(reference[0]) == {}
