"""Equalisation and bias correction, by hand."""

import pytest
import torch
import torch.nn.functional as F

from micronet_cli.functional.equalization import (
    absorbable,
    equalization_scales,
    expected_output,
    input_ranges,
    output_ranges,
    scale_inputs,
)


def test_ranges_meet_in_their_geometric_mean():
    produced, consumed = torch.tensor([8.0, 1.0, 3.0]), torch.tensor([2.0, 4.0, 3.0])
    scales = equalization_scales(produced, consumed)
    assert scales.tolist() == [2, 0.5, 1]
    assert torch.equal(produced / scales, torch.tensor([4.0, 2.0, 3.0]))
    assert torch.equal(consumed * scales, torch.tensor([4.0, 2.0, 3.0]))


def test_unused_channels_keep_their_scale():
    assert equalization_scales(torch.tensor([0.0, 5.0, 0.0]), torch.tensor([2.0, 0.0, 0.0])).tolist() == [1, 1, 1]


def test_ranges_by_hand():
    weight = torch.tensor([[[1.0, -2.0], [0.0, 0.5]], [[-4.0, 3.0], [0.0, 0.25]]])
    assert output_ranges(weight).tolist() == [2, 4]
    assert input_ranges(weight).tolist() == [4, 0.5]
    assert input_ranges(weight[:, :, 0]).tolist() == [4, 0]  # a linear layer's


def test_inputs_of_groups_are_their_own():
    depthwise = torch.tensor([[[1.0, -2.0]], [[3.0, 0.0]]])  # two groups of one input and one output
    assert input_ranges(depthwise, groups=2).tolist() == [2, 3]
    assert scale_inputs(depthwise, torch.tensor([10.0, 100.0]), groups=2).tolist() == [[[10, -20]], [[300, 0]]]
    grouped = torch.arange(8.0).view(4, 2)  # two groups of two inputs and two outputs
    assert input_ranges(grouped, groups=2).tolist() == [2, 3, 6, 7]
    scaled = scale_inputs(grouped, torch.tensor([1.0, 2.0, 3.0, 4.0]), groups=2)
    assert scaled.tolist() == [[0, 2], [2, 6], [12, 20], [18, 28]]


def test_scaled_inputs_are_what_the_convolution_would_have_read():
    torch.manual_seed(0)
    images, weight, scales = torch.randn(2, 6, 5, 5), torch.randn(9, 2, 3, 3), torch.rand(6)
    scaled = F.conv2d(images, scale_inputs(weight, scales, 3), groups=3)
    assert torch.allclose(scaled, F.conv2d(images * scales.view(6, 1, 1), weight, groups=3), atol=1e-5)


def test_expected_output_is_the_mean_of_the_outputs():
    weight = torch.tensor([[1.0, 2.0], [0.0, -1.0]])
    assert expected_output(weight, torch.tensor([[3.0, 1.0]])).tolist() == [5, -1]
    # groups of one: each output reads its own mean
    assert expected_output(torch.tensor([[2.0], [3.0]]), torch.tensor([[5.0], [7.0]])).tolist() == [10, 21]


def test_the_bias_of_a_rounded_weight_by_hand():
    weight, rounded, mean = torch.tensor([[0.4, 1.2]]), torch.tensor([[0.0, 1.0]]), torch.tensor([[2.0, 5.0]])
    shift = expected_output(rounded, mean) - expected_output(weight, mean)
    assert torch.allclose(shift, torch.tensor([-1.8]))
    assert torch.allclose(shift, expected_output(rounded - weight, mean))


FAR_APART = {
    "produced is next to nothing": (1e-38, 0.3),
    "its quotient underflows": (1e-40, 1e6),
    "consumed is next to nothing": (2.0, 1e-38),
    "its quotient overflows": (10.0, 1e-44),
}


@pytest.mark.parametrize(("produced", "consumed"), FAR_APART.values(), ids=FAR_APART.keys())
def test_ranges_beyond_comparison_keep_their_scale(produced, consumed):
    assert equalization_scales(torch.tensor([produced, 8.0]), torch.tensor([consumed, 2.0])).tolist() == [1, 2]


def test_what_is_always_exceeded_is_never_negative():
    mean, deviation = torch.tensor([5.0, 3.0, -4.0, 2.0]), torch.tensor([1.0, 1.5, 0.5, 0.0])
    assert absorbable(mean, deviation).tolist() == [2, 0, 0, 2]
