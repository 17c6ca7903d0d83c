"""Codes of a weight take a gain, and the operators compute what their ONNX translation does."""

import logging
import warnings
from dataclasses import dataclass

import pytest
import torch
from onnx import TensorProto

from micronet_cli.artifact.onnx_operators import QuantizedActivation, QuantizedWeight, _narrowest_unsigned, quiet
from micronet_cli.layers.integer import IntegerActivation


def test_gain_goes_into_scales_and_mirrors_codes():
    # scale 2 (steps of 0.5), zero point -1: codes 0, 3, 1 of integers -1, 2, 0.
    weight = torch.tensor([[-0.5, 1.0, 0.0]] * 3)
    code = QuantizedWeight(weight, torch.full((3, 1), 2.0), torch.full((3, 1), -1.0), 3)
    code.multiply(torch.tensor([3.0, -2.0, 0.0], dtype=torch.float64))
    assert code.codes.tolist() == [[0, 3, 1], [3, 0, 2], [1, 1, 1]]
    assert code.zero_point.tolist() == [1, 2, 1]
    assert code.scale.tolist() == [1.5, 1.0, 0.0]
    code.rescale_zeros()
    assert code.scale.tolist() == [1.5, 1.0, 1.0]
    assert code(weight).tolist() == [[-1.5, 3.0, 0.0], [1.0, -2.0, 0.0], [0.0, 0.0, 0.0]]


def test_symmetric_codes_stay_symmetric_when_mirrored():
    code = QuantizedWeight(torch.tensor([[-1.0, 0.0, 1.0]]), torch.ones(1, 1), torch.full((1, 1), -7.0), 15)
    code.multiply(torch.tensor([-1.0]))
    assert code.codes.tolist() == [[8, 7, 6]]
    assert code.zero_point.tolist() == [7]


def test_activations_are_rounded_and_clipped_to_their_codes():
    x = torch.tensor([-9.0, -0.5, 0.0, 0.2, 0.3, 0.25, 9.0])
    found = torch.ops.micronet.quantize_dequantize(x, 0.5, 1, 3)
    assert found.tolist() == [-0.5, -0.5, 0.0, 0.0, 0.5, 0.5, 1.0]  # 0.25 is a tie between codes 1 and 2
    assert x[0] == -9.0


def test_codes_become_weights_by_output_channel():
    codes = torch.tensor([[0, 3], [1, 2]], dtype=torch.int32)
    zero_point = torch.tensor([1, 2], dtype=torch.int32)
    found = torch.ops.micronet.dequantize(codes, torch.tensor([0.5, 2.0]), zero_point)
    assert found.tolist() == [[-0.5, 1.0], [-2.0, 0.0]]
    assert found.dtype == torch.float32


def test_operators_have_shapes_without_values():
    codes = torch.empty(2, 3, device="meta", dtype=torch.int32)
    scale = torch.empty(2, device="meta")
    weight = torch.ops.micronet.dequantize(codes, scale, scale.int())
    assert (weight.shape, weight.dtype) == ((2, 3), torch.float32)
    assert torch.ops.micronet.quantize_dequantize(weight, 1.0, 0, 15).shape == (2, 3)


def test_activation_takes_its_quantisers_range():
    module = QuantizedActivation(IntegerActivation(2, 2.0, -1))
    assert (module.scale, module.zero_point, module.largest) == (0.5, 1, 3)
    assert module(torch.tensor([-3.0, 0.5, 3.0])).tolist() == [-0.5, 0.5, 1.0]


@dataclass(frozen=True)
class TypeCase:
    largest: int
    kind: int


TYPES = {
    "15": TypeCase(15, TensorProto.UINT4),
    "16": TypeCase(16, TensorProto.UINT8),
    "255": TypeCase(255, TensorProto.UINT8),
    "256": TypeCase(256, TensorProto.UINT16),
}


@pytest.mark.parametrize("name", TYPES)
def test_activation_takes_the_narrowest_unsigned_type(name):
    case = TYPES[name]
    assert _narrowest_unsigned(case.largest) == case.kind


def test_activation_of_more_than_16_bits_is_refused():
    with pytest.raises(ValueError, match="largest=65536: codes must have at most 16 bits"):
        _narrowest_unsigned(65536)


def test_gain_of_one_changes_nothing():
    weight = torch.tensor([[-1.0, 0.0, 2.0]])
    code = QuantizedWeight(weight, torch.ones(1, 1), torch.full((1, 1), -1.0), 3)
    code.multiply(torch.ones(1))
    assert code(weight).tolist() == weight.tolist()
    assert code.codes.tolist() == [[0, 1, 3]]


def test_mirroring_twice_gives_the_weight_back():
    weight = torch.tensor([[-1.0, 0.0, 2.0], [-2.0, 1.0, 0.0]])
    zero_points = torch.tensor([[-1.0], [-2.0]])
    code = QuantizedWeight(weight, torch.ones(2, 1), zero_points, 3)
    code.multiply(torch.tensor([-1.0, -1.0]))
    assert code(weight).tolist() == (-weight).tolist()
    code.multiply(torch.tensor([-1.0, -1.0]))
    assert code(weight).tolist() == weight.tolist()


def test_weight_of_zeros_gets_the_scale_one():
    code = QuantizedWeight(torch.zeros(2, 2), torch.full((2, 1), 8.0), torch.zeros(2, 1), 3)
    code.rescale_zeros()
    assert code.scale.tolist() == [1.0, 1.0]


def test_one_scale_for_the_tensor_is_held_by_every_channel():
    code = QuantizedWeight(torch.tensor([[0.5], [1.0]]), torch.tensor(2.0), torch.tensor(0.0), 3)
    assert code.scale.tolist() == [0.5, 0.5]
    assert code.zero_point.tolist() == [0, 0]


def test_quiet_keeps_prints_and_warnings_and_ends(capsys):
    before = logging.root.manager.disable
    with quiet():
        print("progress")
        warnings.warn("advice", stacklevel=1)
    assert capsys.readouterr().out == ""
    assert logging.root.manager.disable == before
