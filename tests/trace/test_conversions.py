"""Quantisers written out in operators: which are read, with how many bits, and what is executed beside them."""

import pytest
import torch
import torch.nn.functional as F

from micronet_cli.trace.trace import Trace
from tests.trace.written_out import SHAPE, Written


def read(quantize):
    """(kinds before the convolution, bits of its input, ranges of the quantisers' codes)."""
    network = Trace(Written(quantize), SHAPE).read()
    *before, product = network.ops
    assert product.kind == "convolution"
    kinds = [op.kind for op in before]
    codes = [quantizer.codes for quantizer in network.quantizers.values()]
    return kinds, network.value_bits[product.inputs[0]], codes


def round_straight_through(x):
    return x + (x.round() - x).detach()


def by_comparison(x, step):
    codes = (x / step).round()
    codes = torch.where(codes > torch.tensor(7.0), torch.tensor(7.0), codes)
    codes = torch.where(codes < torch.tensor(-8.0), torch.tensor(-8.0), codes)
    return codes * step


def by_range(x, step):
    low = torch.full((1, 1, 1, 1), -0.31)
    width = 15 * step
    scale = 15 / width
    out = x.clip(min=low, max=low + width)
    zero_point = (-low * scale).round()
    out -= low
    out *= scale
    out -= zero_point
    return out.round() / scale


def clamped_first(x, step):
    inside = x.clamp(-0.8, 0.7)
    rounded = (inside / step).round() * step
    return inside + (rounded - inside).detach()


QUANTISERS = {
    "integers": (lambda x, step: x.round().clamp(0, 15), (0, 15)),
    "learned step": (lambda x, step: (x / step).round().clamp(0, 15) * step, (0, 15)),
    "clamped, then rounded": (lambda x, step: (x / step).clamp(-8, 7).round() * step, (-8, 7)),
    "zero point": (lambda x, step: ((x / step + 3).round().clamp(0, 15) - 3) * step, (-3, 12)),
    "in place": (lambda x, step: x.div(step).round_().clamp_(0, 15).mul_(step), (0, 15)),
    "unit range": (lambda x, step: (x.clamp(0, 1) * 15).round() / 15, (0, 15)),
    "two bounds": (lambda x, step: (x / step).round().clamp_min(-8).clamp_max(7) * step, (-8, 7)),
    "bounds by name": (lambda x, step: (x / step).round().clamp(max=7).clamp(min=-8) * step, (-8, 7)),
    "hardtanh": (lambda x, step: F.hardtanh((x / step).round(), -8, 7) * step, (-8, 7)),
    "minimum": (
        lambda x, step: torch.maximum((x / step).round().minimum(torch.tensor(7.0)), torch.tensor(-8.0)) * step,
        (-8, 7),
    ),
    "straight through": (lambda x, step: round_straight_through(x / step).clamp(-8, 7) * step, (-8, 7)),
    "straight through, all": (clamped_first, (-8, 7)),
    "exact difference": (lambda x, step: (x - x.detach()) + (x / step).round().clamp(-8, 7) * step, (-8, 7)),
    "comparisons": (by_comparison, (-8, 7)),
    "range": (by_range, (-3, 12)),
}


@pytest.mark.parametrize("name", QUANTISERS)
def test_a_quantiser_is_one_free_conversion_to_its_codes(name):
    quantize, codes = QUANTISERS[name]
    assert read(quantize) == (["quantize"], 4, [codes])


# Name -> (function, operations before the product, bits of its input).
OTHERS = {
    "no clamp": (lambda x, step: (x / step).round() * step, ["div", "round", "mul"], 32),
    "one bound": (lambda x, step: (x / step).round().clamp(min=0) * step, ["div", "round", "clamp_min", "mul"], 32),
    "no rounding": (lambda x, step: (x / step).clamp(0, 15) * step, ["div", "clamp", "mul"], 32),
    "bound between levels": (lambda x, step: x.round().clamp(0, 14.5), ["round", "clamp"], 32),
    "bounds of channels": (
        lambda x, step: x.round().clamp(torch.zeros(2, 1, 1), torch.ones(2, 1, 1)),
        ["round", "clamp"],
        32,
    ),
    "decimals": (lambda x, step: x.round(decimals=1).clamp(0, 1), ["round", "clamp"], 32),
    "codes alone": (lambda x, step: (x / step).round().clamp(0, 15), ["div", "quantize"], 4),
    "another scale": (lambda x, step: (x / step).round().clamp(0, 15) * 0.3, ["div", "quantize", "mul"], 32),
    "scaled again": (lambda x, step: (x / 2).round().clamp(0, 15) * 2 * 0.5, ["quantize", "mul"], 32),
    "clamped again": (lambda x, step: x.round().clamp(0, 15).clamp(2, 9), ["quantize", "clamp"], 32),
    "float added": (lambda x, step: x.round().clamp(0, 15) + x, ["quantize", "add"], 32),
    "scale of the input": (
        lambda x, step: (x / x.amax()).round().clamp(0, 15),
        ["amax", "div", "quantize"],
        4,
    ),
    "scales of channels": (
        lambda x, step: (x / torch.rand(2, 1, 1)).round().clamp(0, 15) * torch.rand(2, 1, 1),
        ["div", "quantize", "mul"],
        32,
    ),
    "an activation function before": (
        lambda x, step: (F.relu6(x) * 2.5).round() / 2.5,
        ["hardtanh", "quantize"],
        4,
    ),
    "a scale of the network before": (
        lambda x, step: (x * x / 6 / step).round().clamp(0, 15) * step,
        ["mul", "div", "quantize"],
        4,
    ),
    "clamped after, straight through": (
        lambda x, step: x + ((x / step).round().clamp(-8, 7) * step - x).detach(),
        ["quantize", "sub", "add"],
        32,
    ),
    "another part, straight through": (
        lambda x, step: x[:, 1:] + (x[:, :1].round() - x[:, 1:]) + torch.zeros(2, 1, 1),
        ["round", "sub", "add", "add"],
        32,
    ),
    "difference turned": (lambda x, step: x + (x - x.round()), ["round", "sub", "add"], 32),
    "33 bits": (lambda x, step: x.round().clamp(0, 2.0**32), ["round", "clamp"], 32),
}


@pytest.mark.parametrize("name", OTHERS)
def test_no_more_is_claimed_than_is_executed(name):
    quantize, kinds, bits = OTHERS[name]
    found_kinds, found_bits, _ = read(quantize)
    assert (found_kinds, found_bits) == (kinds, bits)


def test_straight_through_estimators_that_are_read_are_exact_and_the_others_are_not():
    torch.manual_seed(0)
    x = torch.randn(10000) * 3
    step = torch.tensor(0.1)
    inside = x.clamp(-0.8, 0.7)
    assert torch.equal(clamped_first(x, step), (inside / step).round() * step)
    assert torch.equal(round_straight_through(x / step), (x / step).round())
    codes = (x / step).round().clamp(-8, 7) * step
    assert not torch.equal(x + (codes - x), codes)


def test_a_step_that_others_read_is_executed_all_the_same():
    def quantize(x, step):
        scaled = x / step
        return scaled.round().clamp(0, 15) * step + scaled.mean()

    assert read(quantize)[0] == ["div", "quantize", "mean", "add"]


def test_a_changed_step_is_read_anew():
    model = Written(lambda x, step: (x.clamp(0, 1) / step).round() * step)
    trace = Trace(model, SHAPE)
    assert [quantizer.bits for quantizer in trace.read().quantizers.values()] == [4]
    with torch.no_grad():
        model.step.fill_(1 / 3)
    assert [quantizer.bits for quantizer in trace.read().quantizers.values()] == [2]
