"""A layer's weights rounded together: closer than one by one, behind any activation function, with masks and groups."""

from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from micronet_cli.compression.quantization.descent import Descent
from micronet_cli.compression.quantization.fixed_grid import FixedGrids
from micronet_cli.compression.quantization.layer_output import Affine
from micronet_cli.compression.quantization.quantizer import BitsRule, Quantizer
from micronet_cli.compression.quantization.reconstruction import Reconstruction
from micronet_cli.compression.quantization.weight_quantizers import RangeLinear
from micronet_cli.layers.effective_weight import attach_mask, effective_weight, original_weight


def per_channel_prelu(x: Tensor) -> Tensor:
    slopes = torch.linspace(0.1, 0.4, len(x))
    return torch.where(x > 0, x, slopes[:, None] * x)


class Case(NamedTuple):
    """A layer and what follows it."""

    activation: object = None
    groups: int = 1
    granularity: str = "per_channel"
    masked: bool = False
    dead: bool = False


CASES = {
    "nothing": Case(),
    "relu": Case(torch.relu),
    "relu6": Case(F.relu6),
    "silu": Case(F.silu),
    "a slope a channel": Case(per_channel_prelu),
    "groups": Case(torch.relu, groups=2),
    "depthwise": Case(F.relu6, groups=8),
    "one step for all": Case(torch.relu, granularity="per_tensor"),
    "masked": Case(torch.relu, masked=True),
    "an input that never moves": Case(torch.relu, groups=8, dead=True),
}


def layer_and_judge(case, bits=3):
    """A convolution on its grid, and random rows that have much in common, as pixels have."""
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 8, 3, groups=case.groups, bias=False)
    if case.masked:
        mask = attach_mask(layer).mask
        mask.copy_(torch.rand(mask.shape) > 0.4)
    model = nn.Sequential(layer)
    scheme = RangeLinear(granularity=case.granularity)
    Quantizer({"all": BitsRule(".*")}, weight_bits=bits, activation_bits=None, weight=scheme).attach(model)
    FixedGrids().attach(model)
    inputs = 8 // case.groups * 9
    mixed = torch.randn(inputs, inputs)
    rows = torch.relu(torch.randn(case.groups, 4000, inputs) @ mixed)
    if case.dead:
        rows[0] = 0
    parts = effective_weight(layer)
    normalised = Affine(torch.rand(8, 1) + 0.1, torch.randn(8, 1))
    normalised.gain[3] = 0
    in_float = Reconstruction(rows, torch.empty(0), normalised, case.activation)
    exact = parts.masked(original_weight(layer).detach())
    target = in_float.outputs(exact)
    return layer, Reconstruction(rows, target, normalised, case.activation)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_rounding_together_is_closer_than_to_the_nearest(case):
    layer, judged = layer_and_judge(case)
    nearest = judged.error(layer.weight)
    rounded = Descent(layer, judged, centred=False).run()
    assert judged.error(rounded) < 0.8 * nearest


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_result_lies_on_the_stored_grid(case):
    layer, judged = layer_and_judge(case)
    rounded = Descent(layer, judged, centred=True).run()
    original_weight(layer).data.copy_(rounded)
    torch.testing.assert_close(layer.weight, rounded)
    mask = effective_weight(layer).mask
    if mask is not None:
        assert (rounded[~mask] == 0).all()


def spread(judged, weight):
    """The error that is left when the mean of each output is right."""
    moved = judged.outputs(weight) - judged.target
    return float(moved.var(1).sum())


def test_what_bias_correction_will_set_is_not_paid_for():
    layer, judged = layer_and_judge(CASES["nothing"])
    centred, whole = (Descent(layer, judged, centred=centred).run() for centred in (True, False))
    assert spread(judged, centred) < spread(judged, whole)
    assert judged.error(whole) < judged.error(centred)


def test_what_the_activation_function_hides_is_not_made_up_for():
    """Earlier layers have moved the inputs; behind a function that hides it, the weight stays."""
    layer, judged = layer_and_judge(CASES["relu"])
    hidden = replace(judged, normalised=Affine(judged.normalised.gain, torch.full((8, 1), -1e6)))
    layer_again, _ = layer_and_judge(CASES["relu"])
    moved = replace(hidden, target=torch.zeros_like(judged.target))
    rounded = Descent(layer, moved, centred=False).run()
    linear = replace(moved, activation=None, target=replace(moved, activation=None).outputs(original_weight(layer)))
    assert torch.equal(rounded, Descent(layer_again, linear, centred=False).run())


def test_few_rows_move_the_weights_little():
    """Eight rows say nothing about most of 72 directions: the weight must not be bent to please them alone."""
    layer, judged = layer_and_judge(CASES["nothing"])
    others = replace(judged, inputs=judged.inputs[:, 8:], target=judged.target[:, 8:])
    few = replace(judged, inputs=judged.inputs[:, :8], target=judged.target[:, :8])
    nearest = others.error(layer.weight)
    assert others.error(Descent(layer, few, centred=False).run()) < 2 * nearest
