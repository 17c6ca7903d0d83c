"""A network with each written-out quantiser as one conversion: operations, quantisers and spans of modules."""

import torch
from torch import nn

from micronet_cli.trace.converted import convert, with_ops
from micronet_cli.trace.observe import record
from tests.trace.small_network import network
from tests.trace.written_out import SHAPE, Written


def converted(quantize):
    model = nn.Sequential(Written(quantize), nn.ReLU())
    recorder, recorded = record(model, SHAPE)
    return recorded, convert(recorded, recorder.conversions)


def test_operations_become_a_conversion_of_what_they_began_with():
    recorded, found = converted(lambda x, step: (x / step).round().clamp(0, 15) * step)
    assert [op.kind for op in recorded.ops] == ["div", "round", "clamp", "mul", "convolution", "relu"]
    assert [op.kind for op in found.ops] == ["quantize", "convolution", "relu"]
    conversion, product, _ = found.ops
    assert conversion.inputs == (0,)
    assert conversion.outputs == product.inputs
    assert [quantizer.bits for quantizer in found.quantizers.values()] == [4]


def test_modules_end_behind_the_operations_that_are_left():
    recorded, found = converted(lambda x, step: (x / step).round().clamp(0, 15) * step)
    assert (recorded.ends["0.conv"], recorded.ends["1"]) == (5, 6)
    assert (found.ends["0.conv"], found.ends["1"]) == (2, 3)


def test_codes_that_the_network_returns_are_converted():
    class Codes(nn.Module):
        def forward(self, x):
            return x.round().clamp(0, 3)

    recorder, recorded = record(Codes(), SHAPE)
    found = convert(recorded, recorder.conversions)
    assert [op.kind for op in found.ops] == ["quantize"]
    assert found.ops[0].outputs == found.outputs


def test_codes_and_what_they_stand_for_are_two_conversions_where_both_are_read():
    def both(x, step):
        codes = (x / step).round().clamp(0, 15)
        return torch.cat([codes[:, :1], (codes * step)[:, 1:]], dim=1)

    _, found = converted(both)
    assert [op.kind for op in found.ops][:3] == ["div", "quantize", "quantize"]
    assert len(found.quantizers) == 2


def test_a_network_without_quantisers_stays_as_it_is():
    recorded, found = converted(lambda x, step: x * step)
    assert found.ops == recorded.ops
    assert found.quantizers == {}


def test_operations_leave_and_the_others_stay():
    before = network()
    after = with_ops(before, [None, before.ops[1]])
    assert after.ops == before.ops[1:]
