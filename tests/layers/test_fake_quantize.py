"""Fake-quantiser modules: levels, stored bits, tracked ranges, and how they hang on a layer."""

import copy

import pytest
import torch
from torch import nn

from micronet_cli.functional.cache_blocks import blocks_pay
from micronet_cli.functional.calibration import min_max, mse
from micronet_cli.layers.fake_quantize import (
    ActivationFakeQuantize,
    FakeQuantize,
    WeightFakeQuantize,
    attach_input_fake_quantize,
    attach_output_fake_quantize,
    check_levels,
    reduced_dims,
)


@pytest.mark.parametrize(
    ("bits", "levels", "code_bits"),
    [
        pytest.param(1, 2, 1, id="binary"),
        pytest.param(1.6, 3, 2, id="ternary"),
        pytest.param(2.5, 5, 3, id="fractional"),
        pytest.param(4, 16, 4, id="whole"),
    ],
)
def test_levels_and_the_bits_that_hold_a_code(bits, levels, code_bits):
    quantizer = FakeQuantize(bits)
    assert (quantizer.levels, quantizer.code_bits) == (levels, code_bits)
    assert repr(quantizer) == f"FakeQuantize(bits={bits})"


def test_stored_bits_are_each_quantiser_s_own():
    with pytest.raises(NotImplementedError):
        FakeQuantize(4).qparams_bits(torch.Size([1]))
    assert ActivationFakeQuantize(4).qparams_bits(torch.Size([8, 3])) == 64


@pytest.mark.parametrize(
    ("quantizer", "bits"),
    [
        pytest.param(WeightFakeQuantize(4), 8 * (32 + 4), id="asymmetric"),
        pytest.param(WeightFakeQuantize(2.5), 8 * (32 + 3), id="fractional"),
        pytest.param(WeightFakeQuantize(4, symmetric=True), 8 * 32, id="symmetric"),
        pytest.param(WeightFakeQuantize(4, "per_tensor"), 32 + 4, id="per-tensor"),
    ],
)
def test_weight_ranges_are_stored_with_a_zero_point_where_they_have_one(quantizer, bits):
    assert quantizer.qparams_bits(torch.Size([8, 3, 3, 3])) == bits


def test_check_levels_says_how_many_are_needed():
    check_levels("weight_bits", 1.6, 3, "LSQ")
    with pytest.raises(ValueError, match=r"^weight_bits=1\.5: LSQ needs at least 3 levels$"):
        check_levels("weight_bits", 1.5, 3, "LSQ")


def test_reduced_dims_are_all_but_the_channel():
    weight = torch.zeros(2, 3, 4)
    assert reduced_dims(weight, "per_channel") == (1, 2)
    assert reduced_dims(weight, "per_tensor") is None


@pytest.mark.parametrize(
    ("bits", "symmetric", "largest"),
    [
        pytest.param(4, False, 15, id="even"),
        pytest.param(4, True, 14, id="even, symmetric"),
        pytest.param(2.5, False, 4, id="odd"),
        pytest.param(2.5, True, 4, id="odd, symmetric"),
    ],
)
def test_symmetric_integers_leave_the_odd_code_out(bits, symmetric, largest):
    assert WeightFakeQuantize(bits, symmetric=symmetric).largest == largest


@pytest.mark.parametrize(
    ("quantizer", "weight", "rounded"),
    [
        pytest.param(WeightFakeQuantize(2), [[0.0, 1.4, 3.0]], [[0.0, 1.0, 3.0]], id="one-sided"),
        pytest.param(WeightFakeQuantize(2), [[-1.0, 0.6, 2.0]], [[-1.0, 1.0, 2.0]], id="two-sided"),
        pytest.param(WeightFakeQuantize(2), [[0.5, 1.5, 3.0]], [[0.0, 2.0, 3.0]], id="ties-to-even"),
        pytest.param(WeightFakeQuantize(2), [[0.0, 0.0], [0.0, 3.0]], [[0.0, 0.0], [0.0, 3.0]], id="zero-channel"),
        pytest.param(WeightFakeQuantize(2), [[6.0]], [[6.0]], id="one-element"),
        pytest.param(WeightFakeQuantize(2, symmetric=True), [[-0.9, 0.4, 2.0]], [[0.0, 0.0, 2.0]], id="symmetric"),
        pytest.param(WeightFakeQuantize(2, "per_tensor"), [[1.0], [3.0]], [[1.0], [3.0]], id="per-tensor"),
    ],
)
def test_weight_golden_values(quantizer, weight, rounded):
    assert quantizer(torch.tensor(weight)).tolist() == rounded


def test_weight_gradient_is_one_everywhere():
    weight = torch.tensor([[-1.0, 0.0, 7.0]], requires_grad=True)
    WeightFakeQuantize(2)(weight).backward(torch.tensor([[1.0, 2.0, 3.0]]))
    assert weight.grad.tolist() == [[1.0, 2.0, 3.0]]


def test_golden_range_is_a_corrected_average():
    quantizer = ActivationFakeQuantize(4, decay=0.5).train()
    quantizer(torch.tensor([-1.0, 1.0]))
    assert (quantizer.low.item(), quantizer.high.item()) == (-1, 1)
    # Weights 1/2 and 1/4 over 3/4: (2 * 4 + 1) / 3.
    quantizer(torch.tensor([-4.0, 4.0]))
    assert quantizer.high.item() == pytest.approx(3.0)
    quantizer.eval()(torch.tensor([100.0]))
    assert quantizer.high.item() == pytest.approx(3.0)


def test_a_frozen_range_stays_while_training():
    quantizer = ActivationFakeQuantize(2).train()
    quantizer(torch.tensor([0.0, 3.0]))
    quantizer.frozen = True
    assert quantizer(torch.tensor([9.0])).tolist() == [3.0]
    assert quantizer.high.item() == 3


def test_a_batch_of_zeros_stays_zero():
    assert ActivationFakeQuantize(4).train()(torch.zeros(2, 3)).tolist() == [[0.0] * 3] * 2


@pytest.mark.parametrize(
    ("batch", "zero_point"),
    [pytest.param([0.0, 3.0], 0, id="unsigned"), pytest.param([-1.0, 3.0], -7, id="signed")],
)
def test_a_symmetric_range_follows_the_sign_of_the_data(batch, zero_point):
    quantizer = ActivationFakeQuantize(4, symmetric=True).train()
    quantizer(torch.tensor(batch))
    assert quantizer.qparams()[1].item() == zero_point


@pytest.mark.parametrize("factor", [0.9, 3.0])
@pytest.mark.parametrize("estimate", [min_max, mse])
def test_gradient_of_a_batch_within_the_range_and_of_one_beyond(factor, estimate):
    torch.manual_seed(0)
    x = torch.rand(2, 2**18)
    x[0, 0] = 5.0  # the range of least error leaves it out
    quantizer = ActivationFakeQuantize(4, estimate=estimate).train()
    for _ in range(20):
        quantizer(x)
    leaf = (x * factor).requires_grad_()
    assert blocks_pay(leaf)
    quantizer(leaf).backward(torch.full_like(x, 2.0))
    scale, zero_point = quantizer.qparams()
    clipped = torch.round(leaf * scale - zero_point) > 15
    assert bool(clipped.any()) == (factor > 1 or estimate is mse)
    assert torch.equal(leaf.grad, torch.where(clipped, 0.0, 2.0))


def test_the_tracked_range_is_in_checkpoints():
    layer = nn.Linear(2, 2)
    attach_input_fake_quantize(layer, ActivationFakeQuantize(4))
    names = [name for name in layer.state_dict() if name.startswith("input")]
    assert names == ["input_fake_quantize.low", "input_fake_quantize.high", "input_fake_quantize.seen"]


class TwoInputs(nn.Module):
    def forward(self, one, two):
        return one + two


def test_only_the_first_input_is_quantised():
    layer = TwoInputs().eval()
    attach_input_fake_quantize(
        layer, ActivationFakeQuantize(4).eval()
    )  # the empty range rounds to whole numbers from 0
    assert layer(torch.tensor(0.4), torch.tensor(0.25)).item() == 0.25


@pytest.mark.parametrize("attach", [attach_input_fake_quantize, attach_output_fake_quantize])
def test_a_quantiser_replaces_the_one_before_and_goes_without_a_trace(attach):
    layer = nn.Identity().eval()
    others = [layer.register_forward_pre_hook(lambda m, i: None), layer.register_forward_hook(lambda m, i, o: None)]
    attach(layer, None)
    attach(layer, ActivationFakeQuantize(4))
    attach(layer, ActivationFakeQuantize(2).eval())
    assert len(layer._forward_pre_hooks) + len(layer._forward_hooks) == len(others) + 1
    assert layer(torch.tensor([9.0])).tolist() == [3.0]
    attach(layer, None)
    assert len(layer._forward_pre_hooks) + len(layer._forward_hooks) == len(others)
    assert layer(torch.tensor([9.5])).tolist() == [9.5]
    attach(layer, ActivationFakeQuantize(2).eval())
    assert layer(torch.tensor([9.0])).tolist() == [3.0]


@pytest.mark.parametrize("attach", [attach_input_fake_quantize, attach_output_fake_quantize])
def test_copies_track_ranges_of_their_own(attach):
    layer = nn.Identity()
    quantizer = ActivationFakeQuantize(4)
    attach(layer, quantizer)
    copy.deepcopy(layer).train()(torch.tensor([5.0]))
    assert quantizer.seen == 0
