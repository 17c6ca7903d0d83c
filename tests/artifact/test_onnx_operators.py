"""Codes of a weight take a gain, and the operators compute what their ONNX translation does."""

import torch

from micronet_cli.artifact.onnx_operators import QuantizedWeight


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
