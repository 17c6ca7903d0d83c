"""Properties over random networks: fewer weights and fewer bits never score more."""

import copy

import pytest
import torch
from torch import nn

from micronet_cli.layers.effective_weight import attach_effective_weight, attach_mask, effective_weight
from micronet_cli.layers.fake_quantize import (
    ActivationFakeQuantize,
    WeightFakeQuantize,
    attach_input_fake_quantize,
)
from micronet_cli.layers.rules import compressible_layers
from micronet_cli.scoring import rule_set, score, score_with
from micronet_cli.trace.trace import Trace

SHAPE = (3, 9, 9)
ACCUMULATORS = ("fp32", "integer", "adder_tree")


def random_network(seed):
    """Convolutions, a depthwise one and a classifier, with random masks and quantisers."""
    torch.manual_seed(seed)
    width = int(torch.randint(2, 7, ()))
    model = nn.Sequential(
        nn.Conv2d(3, width, 3, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, groups=width),
        nn.Hardswish(),
        nn.Conv2d(width, 2 * width, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * width, 5),
    ).eval()
    for layer in compressible_layers(model).values():
        mask = attach_mask(layer).mask
        mask.copy_(torch.rand(mask.shape) > torch.rand(()))
        if torch.rand(()) < 0.8:
            attach_effective_weight(layer).fake_quantize = WeightFakeQuantize(int(torch.randint(2, 9, ())))
        if torch.rand(()) < 0.8:
            attach_input_fake_quantize(layer, ActivationFakeQuantize(int(torch.randint(2, 9, ()))))
    return model


def value(trace, accumulator="fp32"):
    return score_with(trace, rule_set("official", accumulator=accumulator)).total.score


@pytest.mark.parametrize("seed", range(8))
def test_zeroing_a_masked_weight_never_raises_the_score(seed):
    model = random_network(seed)
    # Fixed scales: what a zero does to the other weights' rounding is the quantiser's affair.
    for layer in compressible_layers(model).values():
        effective_weight(layer).fake_quantize = None
    trace = Trace(model, SHAPE)
    before = value(trace)
    for _ in range(6):
        masks = [effective_weight(layer).mask for layer in compressible_layers(model).values()]
        mask = masks[int(torch.randint(len(masks), ()))]
        mask.view(-1)[int(torch.randint(mask.numel(), ()))] = False
        after = value(trace)
        assert after <= before
        before = after


@pytest.mark.parametrize("accumulator", ACCUMULATORS)
@pytest.mark.parametrize("seed", range(4))
def test_removing_an_activation_bit_never_raises_the_score(seed, accumulator):
    model = random_network(seed)
    trace = Trace(model, SHAPE)
    before = value(trace, accumulator)
    for layer in compressible_layers(model).values():
        quantizer = getattr(layer, "input_fake_quantize", None)
        if quantizer is not None and quantizer.bits > 1:
            quantizer.bits -= 1
            after = value(trace, accumulator)
            assert after <= before
            before = after


@pytest.mark.parametrize("accumulator", ACCUMULATORS)
@pytest.mark.parametrize("seed", range(4))
def test_removing_a_weight_bit_never_raises_the_score(seed, accumulator):
    model = random_network(seed)
    trace = Trace(model, SHAPE)
    before = value(trace, accumulator)
    for layer in compressible_layers(model).values():
        quantizer = effective_weight(layer).fake_quantize
        while quantizer is not None and quantizer.bits > 1:
            quantizer.bits -= 1
            after = value(trace, accumulator)
            assert after <= before
            before = after


@pytest.mark.parametrize("seed", range(4))
def test_reduced_accumulators_never_cost_more_than_float_ones(seed):
    trace = Trace(random_network(seed), SHAPE)
    floats = value(trace)
    assert all(value(trace, accumulator) <= floats for accumulator in ACCUMULATORS)


@pytest.mark.parametrize("seed", range(4))
def test_rows_and_headings_add_up_to_the_score(seed):
    report = score_with(random_network(seed), rule_set("official"), SHAPE)
    for per in ("layer", "block"):
        assert sum(row.score for row in report.rows(per)) == pytest.approx(report.total.score)
        assert sum(row.share for row in report.rows(per)) == pytest.approx(1)
    assert sum(part.score for part in report.parts().values()) == pytest.approx(report.total.score)


@pytest.mark.parametrize("seed", range(3))
def test_scoring_twice_and_scoring_a_copy_agree(seed):
    model = random_network(seed)
    assert score(model, SHAPE) == score(model, SHAPE) == score(copy.deepcopy(model), SHAPE)
