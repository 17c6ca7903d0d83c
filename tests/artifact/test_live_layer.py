"""A live layer's integers are those of its effective weight, and what follows it becomes a factor and a bias."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from micronet_cli.artifact.live_layer import integers_of_weight, pack_layer, stored_names
from micronet_cli.artifact.packer import Packer
from micronet_cli.compression.quantization.weight_quantizers import Binary
from micronet_cli.layers.effective_weight import attach_effective_weight, attach_mask
from micronet_cli.layers.fake_quantize import WeightFakeQuantize


def linear(rows, bias=None):
    layer = nn.Linear(len(rows[0]), len(rows), bias=bias is not None).double().eval()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(rows))
        if bias is not None:
            layer.bias.copy_(torch.tensor(bias))
    return layer


def norm(gains, shifts):
    """A BatchNorm in evaluation mode that multiplies by ``gains`` and adds ``shifts``."""
    module = nn.BatchNorm1d(len(gains), eps=0.0).double().eval()
    with torch.no_grad():
        module.weight.copy_(torch.tensor(gains))
        module.bias.copy_(torch.tensor(shifts))
    return module


def quantised(rows, bits=2, symmetric=False, granularity="per_channel"):
    layer = linear(rows)
    attach_effective_weight(layer).fake_quantize = WeightFakeQuantize(bits, granularity, symmetric)
    return layer


@torch.no_grad()
def pack(layer, norm=None, integer=True):
    packer = Packer(entropy=False)
    return pack_layer(packer, "a", layer, norm, integer), packer


def fixed(packer, exponent, part):
    """A part of the scales that was stored as int32, as float64."""
    return np.ldexp(np.frombuffer(packer.streams["scales"][part], "<i4").astype(float), exponent)


@dataclass
class BadCodes:
    """Weight, scale and zero point that no quantiser of 2 bits may have."""

    weight: float
    scale: float
    zero_point: float
    message: str


BAD_CODES = {
    "between two integers": BadCodes(0.5, 1.0, 0.0, "WeightFakeQuantize's codes do not give the effective weight"),
    "below the first code": BadCodes(-2.0, 1.0, -1.0, "codes do not give the effective weight"),
    "above the last code": BadCodes(4.0, 1.0, 0.0, "codes do not give the effective weight"),
    "positive zero point": BadCodes(2.0, 1.0, 1.0, "WeightFakeQuantize has a positive zero point"),
}


@pytest.mark.parametrize("case", BAD_CODES)
def test_codes_that_no_packer_can_store_are_refused(case):
    bad = BAD_CODES[case]
    weight = torch.tensor([[bad.weight]], dtype=torch.float64)
    scale, zero_point = torch.tensor([[bad.scale]]), torch.tensor([[bad.zero_point]])
    with pytest.raises(ValueError, match=f"layer a: .*{bad.message}|layer a: {bad.message}"):
        integers_of_weight("a", weight, scale, zero_point, WeightFakeQuantize(2))


def test_integers_lie_around_zero_and_codes_of_zero_beside_them():
    weight = torch.tensor([[-0.5, 0.0, 1.0], [0.0, 0.25, 0.75]], dtype=torch.float64)
    scale = torch.tensor([[2.0], [4.0]], dtype=torch.float64)
    zero_point = torch.tensor([[-1.0], [0.0]], dtype=torch.float64)
    integers, zero_codes = integers_of_weight("a", weight, scale, zero_point, WeightFakeQuantize(2))
    assert integers.tolist() == [[-1, 0, 2], [0, 1, 3]]
    assert zero_codes.tolist() == [1, 0]


def test_float32_rounding_of_a_16_bit_code_is_no_fault():
    scale = torch.tensor([[65535 / 0.3]])
    weight = torch.tensor([[65535.0]]) / scale
    scaled = weight.double() * scale.double()
    assert abs(scaled - 65535) > 1e-3
    integers, _ = integers_of_weight("a", weight, scale, torch.zeros(1, 1), WeightFakeQuantize(16))
    assert integers.tolist() == [[65535]]


def test_a_rounding_error_of_float64_is_no_fault():
    weight = torch.tensor([[3.0000001]], dtype=torch.float64)
    one, zero = torch.ones(1, 1), torch.zeros(1, 1)
    integers, _ = integers_of_weight("a", weight, one, zero, WeightFakeQuantize(2))
    assert integers.tolist() == [[3]]


def test_a_weight_beside_its_grid_is_a_fault():
    one, zero = torch.ones(1, 1), torch.zeros(1, 1)
    with pytest.raises(ValueError, match="codes do not give the effective weight"):
        integers_of_weight("a", torch.tensor([[3.0012]]), one, zero, WeightFakeQuantize(2))


def test_codes_are_those_of_the_layers_own_precision():
    # 3.5 steps of 0.02 in float32, a little less in float64
    layer = nn.Linear(3, 1, bias=False)
    layer.weight.data = torch.tensor([[0.0, 0.3, 0.07]])
    attach_effective_weight(layer).fake_quantize = WeightFakeQuantize(4)
    stored = []
    for precision in (torch.float32, torch.float64):
        _, packer = pack(layer.to(precision))
        stored.append(packer.streams["codes"])
    assert stored[0] != stored[1]


def test_binary_weights_take_the_codes_zero_and_two():
    weight = torch.tensor([[-0.5, 0.5]], dtype=torch.float64)
    scale, zero_point = torch.full((1, 1), 2.0), torch.full((1, 1), -1.0)
    integers, zero_codes = integers_of_weight("a", weight, scale, zero_point, Binary()(1, weight))
    assert integers.tolist() == [[-1, 1]]
    assert zero_codes.tolist() == [1]


def test_dense_float_layer_without_a_norm_is_left_to_the_parameters():
    entry, packer = pack(linear([[1.0, 2.0], [3.0, 4.0]]))
    assert entry is None
    assert not any(packer.streams.values())


@pytest.mark.parametrize(
    ("zeros", "stored"),
    [pytest.param(1, False, id="one bit an element, as much"), pytest.param(2, True, id="one zero more")],
)
def test_a_mask_has_to_save_more_than_it_takes(zeros, stored):
    row = [0.0] * zeros + [1.0] * (32 - zeros)
    entry, _ = pack(linear([row]))
    assert (entry is not None) == stored


def test_mask_without_a_zero_is_remembered():
    layer = linear([[1.0, 2.0]])
    attach_mask(layer)
    entry, _ = pack(layer)
    assert entry.masked
    assert entry.positions == ("all",)


def test_float_layer_of_zeros_stores_no_value():
    entry, packer = pack(linear([[0.0] * 8] * 4))
    assert entry.positions != ("all",)
    assert b"".join(packer.streams["parameters"]) == b""


def test_norm_of_either_sign_becomes_factors_and_biases():
    entry, packer = pack(linear([[1.0], [2.0], [4.0]], bias=[1.0, 1.0, 0.0]), norm([2.0, -0.5, 0.0], [0.0, 1.0, 3.0]))
    assert entry.scales == 3
    assert fixed(packer, entry.scale_exponent, 0).tolist() == [2.0, -0.5, 0.0]
    assert fixed(packer, entry.bias_exponent, 1).tolist() == [2.0, 0.5, 3.0]


def test_quantised_layer_stores_its_step_times_the_gain():
    layer = quantised([[0.0, 0.5, 1.5], [0.0, 1.0, 3.0]])
    entry, packer = pack(layer, norm([1.0, -2.0], [0.0, 0.5]))
    assert entry.integer
    assert entry.levels == 4
    assert fixed(packer, entry.scale_exponent, 0).tolist() == [0.5, -2.0]
    assert fixed(packer, entry.bias_exponent, 1).tolist() == [0.0, 0.5]


def test_channel_of_zeros_does_not_set_the_resolution_of_the_others():
    layer = quantised([[0.0, 0.0], [0.25, 0.75], [0.0, 1.5]])
    entry, packer = pack(layer, norm([1000.0, 1.0, 1.0], [0.0, 0.0, 0.0]))
    assert fixed(packer, entry.scale_exponent, 0).tolist() == [0.25, 0.25, 0.5]


def test_layer_that_cannot_be_rescaled_keeps_its_bias_and_its_values():
    layer = quantised([[0.0, 0.5, 1.5]])
    entry, packer = pack(layer, integer=False)
    assert not entry.rescaled
    assert entry.bias_exponent is None
    assert len(packer.streams["scales"]) == 1


def test_symmetric_weights_have_one_code_of_zero_and_others_their_own():
    symmetric, packer = pack(quantised([[-1.0, 0.0, 1.0]], symmetric=True))
    assert symmetric.zero_code == 1
    assert packer.streams["offsets"] == []
    asymmetric, packer = pack(quantised([[-1.0, 0.0, 2.0], [0.0, 1.0, 3.0]]))
    assert asymmetric.zero_code is None
    assert len(packer.streams["offsets"]) == 1


def test_one_range_for_the_tensor_has_one_scale():
    entry, _ = pack(quantised([[0.0, 1.0], [2.0, 3.0]], granularity="per_tensor"))
    assert entry.per_tensor
    assert entry.scales == 1


def test_weight_or_bias_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="layer a: its weight is not finite"):
        pack(linear([[float("inf")]]))
    with pytest.raises(ValueError, match="layer a: its bias is not finite"):
        pack(linear([[1.0]], bias=[float("nan")]))


def test_entry_stands_for_the_bias_only_where_it_rescales():
    plain = linear([[1.0, 0.0]], bias=[1.0])
    entry, _ = pack(plain)
    assert stored_names(plain, entry) == ["weight"]
    folded, _ = pack(plain, norm([1.0], [0.0]))
    assert stored_names(plain, folded) == ["weight", "bias"]
    layer = quantised([[0.0, 1.0, 3.0]])
    entry, _ = pack(layer)
    assert stored_names(layer, entry) == ["parametrizations.weight.original", "bias"]
