"""Weight quantisers with a grid of their own: golden values, stored bits and copies that stay apart."""

import copy

import pytest
import torch

from micronet_cli.compression.quantization.weight_modules import (
    AccumulatorAwareWeight,
    DoReFaWeight,
    LearnedStepWeight,
    MagnitudeWeight,
)
from micronet_cli.functional.weight_schemes import binary, ternary


def test_golden_learned_steps_by_channel_and_tensor():
    weight = torch.tensor([[1.0, -1.0], [0.0, 4.0]])
    # 2 <|w|> / sqrt(Q_P) over non-zeros, Q_P = 1 at 2 bits.
    assert LearnedStepWeight(2, weight, "per_channel", plus=False).step.tolist() == [2, 8]
    assert LearnedStepWeight(2, weight, "per_tensor", plus=False).step.item() == 4


def test_golden_learned_values_round_and_clip():
    quantizer = LearnedStepWeight(2, torch.tensor([[1.0]]), "per_tensor", plus=False)
    quantizer.step.data.fill_(-2.0)  # its magnitude is used
    weight = torch.tensor([[-9.0, -1.5, 0.0, 0.9, 9.0]])
    assert quantizer(weight).tolist() == [[-4, -2, 0, 0, 2]]
    scale, zero_point = quantizer.qparams(weight)
    assert (scale.item(), zero_point.item()) == (0.5, -2)


def test_a_step_of_zero_stays_usable():
    quantizer = LearnedStepWeight(4, torch.ones(1, 2), "per_channel", plus=True)
    quantizer.step.data.zero_()
    assert quantizer.size(torch.ones(1, 2)).item() == torch.finfo(torch.float32).eps


def test_golden_accumulator_aware_channels_keep_their_limit():
    quantizer = AccumulatorAwareWeight(4, torch.ones(2, 3), limit=3)
    quantizer.step.data.fill_(1.0)
    weight = torch.tensor([[4.0, -2.0, 0.0], [1.0, 0.0, 0.2]])
    assert quantizer(weight).abs().sum(1).tolist() == [3, 1]
    assert quantizer.largest_integer == 7


def test_dorefa_keeps_the_largest_weight():
    weight = torch.tensor([[-2.0, 0.0, 0.1]])
    assert DoReFaWeight(2)(weight).tolist() == [[-2, 0, 0]]


@pytest.mark.parametrize(
    ("rounded", "wanted"),
    [pytest.param(binary, [[-2.0, 2.0]], id="binary"), pytest.param(ternary, [[0.0, 3.0]], id="ternary")],
)
def test_golden_magnitudes_and_their_scale(rounded, wanted):
    weight = torch.tensor([[-1.0, 3.0]])
    quantizer = MagnitudeWeight(1.6, rounded, has_zero=rounded is ternary)
    assert quantizer(weight).tolist() == wanted
    scale, zero_point = quantizer.qparams(weight)
    assert scale.item() == pytest.approx(1 / wanted[0][1])
    assert zero_point.item() == -1
    # A channel of zeros has scale 1, not infinity.
    assert quantizer.qparams(torch.zeros(1, 2))[0].item() == 1


def test_stored_bits_are_a_32_bit_number_a_range():
    weight = torch.ones(5, 2)
    assert LearnedStepWeight(4, weight, "per_channel", plus=False).qparams_bits(weight.shape) == 160
    assert LearnedStepWeight(4, weight, "per_tensor", plus=False).qparams_bits(weight.shape) == 32
    assert DoReFaWeight(4).qparams_bits(weight.shape) == 32
    assert MagnitudeWeight(1, binary, has_zero=False).qparams_bits(weight.shape) == 160


def test_copies_have_steps_of_their_own():
    quantizer = LearnedStepWeight(4, torch.ones(2, 2), "per_channel", plus=False)
    copied = copy.deepcopy(quantizer)
    copied.step.data.fill_(9.0)
    assert 9 not in quantizer.step.tolist()
