"""Integer layers: exact sums, rescaling, and the widths that hold them."""

import itertools

import pytest
import torch
from torch import nn

from micronet_cli.layers.effective_weight import effective_weight
from micronet_cli.layers.fake_quantize import ActivationFakeQuantize, attach_input_fake_quantize
from micronet_cli.layers.integer import (
    IntegerActivation,
    IntegerWeight,
    Numbers,
    Rescale,
    attach_integers,
    attach_rescale,
    certified_widths,
    exact_dtype,
    integer_input,
    signed_sums,
)


def integer_layer(rows, bits=2, zero_point=0, dtype=torch.float32):
    layer = nn.Linear(len(rows[0]), len(rows))
    attach_integers(layer, torch.tensor(rows), IntegerWeight(4, "per_channel", symmetric=True), masked=False)
    quantizer = IntegerActivation(bits, 1.0, zero_point)
    quantizer.dtype = dtype
    attach_input_fake_quantize(layer, quantizer)
    return layer


def test_integer_weights_are_themselves():
    quantizer = IntegerWeight(4, "per_channel", symmetric=True)
    weight = torch.tensor([[3.0, -2.0]])
    assert quantizer(weight) is weight
    assert [value.item() for value in quantizer.qparams(weight)] == [1, 0]
    quantizer.dtype = torch.float64
    assert quantizer(weight).dtype == torch.float64


def test_integer_weights_times_their_step():
    quantizer = IntegerWeight(4, "per_channel", True, Numbers(torch.tensor([1, 3], dtype=torch.int32), 0.5))
    weight = torch.tensor([[2.0], [4.0]])
    assert quantizer(weight).tolist() == [[1.0], [6.0]]
    scale, zero_point = quantizer.qparams(weight)
    torch.testing.assert_close(scale, torch.tensor([[2.0], [2 / 3]]))
    assert zero_point.item() == 0


def test_integer_activations_golden_values():
    quantizer = IntegerActivation(2, 2.0, -1)
    x = torch.tensor([-3.0, 0.25, 0.75, 9.0])  # 0.5 and 1.5 steps: ties to even
    assert quantizer.codes == (-1, 2)
    assert quantizer.integers(x).tolist() == [-1, 0, 2, 2]
    assert quantizer(x).tolist() == [-0.5, 0.0, 1.0, 1.0]
    assert [value.item() for value in quantizer.qparams()] == [2, -1]


def test_integer_activations_track_nothing_and_store_nothing():
    quantizer = IntegerActivation(2, 2.0, -1).train()
    quantizer(torch.tensor([100.0]))
    assert quantizer.state_dict() == {}


def test_integer_activations_hand_on_integers_in_the_wider_type():
    quantizer = IntegerActivation(2, 2.0, 0)
    quantizer.dtype = torch.float32
    assert quantizer(torch.tensor([1.0], dtype=torch.float64)).dtype == torch.float64
    quantizer.dtype = torch.float64
    out = quantizer(torch.tensor([0.6]))
    assert (out.dtype, out.tolist()) == (torch.float64, [1.0])


def test_numbers_stand_by_channel():
    numbers = Numbers(torch.tensor([1, -6], dtype=torch.int32), 2.0**-2)(torch.float64, 2)
    assert (numbers.shape, numbers.dtype) == ((2, 1, 1), torch.float64)
    assert numbers.flatten().tolist() == [0.25, -1.5]


def test_rescale_with_and_without_a_bias():
    factor, bias = Numbers(torch.tensor([2.0, 3.0])), Numbers(torch.tensor([10.0, 20.0]))
    sums = torch.tensor([[1.0, 1.0]])
    assert Rescale(factor, bias, 0)(sums, torch.float32).tolist() == [[12.0, 23.0]]
    assert Rescale(factor, None, 0)(sums, torch.float64).dtype == torch.float64
    assert sums.tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("layer", [nn.Linear(2, 3), nn.Conv2d(2, 3, 1), nn.Conv1d(2, 3, 1)], ids=str)
def test_attach_rescale_takes_the_place_of_the_bias(layer):
    images = torch.randn(1, 2, *[4] * (layer.weight.dim() - 2))
    with torch.no_grad():
        plain = layer(images) - layer.bias.view(-1, *[1] * (layer.weight.dim() - 2))
    attach_rescale(layer, Numbers(torch.tensor([2.0, 2.0, 2.0])), Numbers(torch.tensor([1.0])))
    assert layer.bias is None
    torch.testing.assert_close(layer(images), 2 * plain + 1)


@pytest.mark.parametrize("masked", [True, False])
def test_attach_integers_masks_zeros_where_there_was_a_mask(masked):
    layer = nn.Linear(3, 1)
    attach_integers(layer, torch.tensor([[2, 0, -1]]), IntegerWeight(4, "per_tensor", True), masked)
    assert layer.weight.tolist() == [[2.0, 0.0, -1.0]]
    mask = effective_weight(layer).mask
    assert mask.tolist() == [[True, False, True]] if masked else mask is None


def test_integer_input_is_found_only_where_integers_are_handed_on():
    layer = nn.Linear(1, 1)
    assert integer_input(layer) is None
    attach_input_fake_quantize(layer, ActivationFakeQuantize(4))
    assert integer_input(layer) is None
    quantizer = IntegerActivation(4, 1.0, 0)
    attach_input_fake_quantize(layer, quantizer)
    assert integer_input(layer) is None
    quantizer.dtype = torch.float32
    assert integer_input(layer) is quantizer


def test_signed_sums_golden_values():
    positive, negative = signed_sums(torch.tensor([[[3.0, -2.0]], [[0.0, 0.0]], [[-1.0, -4.0]]]))
    assert (positive.tolist(), negative.tolist()) == ([3, 0, 0], [-2, 0, -5])
    assert positive.dtype == negative.dtype == "int64"


@pytest.mark.parametrize(
    ("weights", "codes", "dtype"),
    [
        pytest.param([2**24 - 1.0], (0, 1), torch.float32, id="just-fits-float32"),
        pytest.param([2.0**24], (0, 1), torch.float64, id="just-beyond-float32"),
        pytest.param([-(2.0**24)], (0, 1), torch.float64, id="negative-sums"),
        pytest.param([2.0**23, -(2.0**23)], (-1, 1), torch.float64, id="signed-inputs-add-up"),
        pytest.param([2.0**23, -(2.0**23)], (0, 1), torch.float32, id="unsigned-inputs-do-not"),
        pytest.param([0.0], (0, 255), torch.float32, id="all-zero"),
    ],
)
def test_exact_dtype_holds_every_partial_sum(weights, codes, dtype):
    assert exact_dtype(torch.tensor([weights]), codes) == dtype


def test_exact_dtype_is_refused_where_no_type_is_wide_enough():
    with pytest.raises(ValueError, match="more than float64 holds exactly"):
        exact_dtype(torch.tensor([[2.0**52]], dtype=torch.float64), (0, 2))


def test_certified_widths_are_exact():
    """Of all inputs the widest partial sum fits the width, and not one bit less."""
    rows = [[3, -2, 1], [0, 0, -1], [-4, -4, 0]]
    model = nn.Sequential(integer_layer(rows, bits=2, zero_point=-1), nn.Linear(3, 1))
    widths = certified_widths(model)
    assert list(widths) == ["0"]
    for row, width in zip(rows, widths["0"].tolist(), strict=True):
        sums = {
            sum(w * q for w, q in zip(row, inputs, strict=True)) for inputs in itertools.product(range(-1, 3), repeat=3)
        }
        assert all(-(2 ** (width - 1)) <= value < 2 ** (width - 1) for value in sums)
        half = 2 ** (width - 2) if width > 1 else 0
        assert not all(-half <= value < half for value in sums)


def test_a_step_of_zero_has_a_finite_scale():
    quantizer = IntegerWeight(4, "per_channel", symmetric=True, step=Numbers(torch.tensor([0.0, 0.5])))
    scale, _ = quantizer.qparams(torch.ones(2, 3))
    assert scale.flatten().tolist() == [1, 2]
