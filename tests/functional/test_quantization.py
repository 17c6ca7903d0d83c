"""Range-linear rounding by hand, and the gradients that pass it."""

import pytest
import torch

from micronet_cli.functional.cache_blocks import BLOCK
from micronet_cli.functional.quantization import (
    StraightThrough,
    _FakeQuantize,
    channel_range,
    clip_bounds,
    codes,
    fake_quantize,
    quant_max,
    quantize_blocks,
    range_linear,
    range_symmetric,
    signed_min,
    tensor_range,
)


def test_golden_two_bits():
    # [-1, 2] with 3 steps: scale 1, zero point -1, codes of -1 0 1 2 are 0 1 2 3.
    x = torch.tensor([-1.0, 0.0, 0.4, 0.6, 2.0])
    scale, zero_point = range_linear(torch.tensor(-1.0), torch.tensor(2.0), 2)
    assert (scale.item(), zero_point.item()) == (1.0, -1.0)
    assert codes(x, scale, zero_point, 3).tolist() == [0, 1, 1, 2, 3]
    assert fake_quantize(x, scale, zero_point, 3).tolist() == [-1, 0, 0, 1, 2]


def test_golden_zero_joins_a_positive_range():
    # [1, 3] becomes [0, 3].
    scale, zero_point = range_linear(torch.tensor(1.0), torch.tensor(3.0), 2)
    assert (scale.item(), zero_point.item()) == (1.0, 0.0)


def test_golden_two_and_a_half_bits_have_five_levels():
    x = torch.linspace(-1, 1, 1001)
    scale, zero_point = range_linear(x.min(), x.max(), 2.5)
    assert sorted(set(codes(x, scale, zero_point, quant_max(2.5)).tolist())) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("bits", [1, 1.6, 2, 2.4, 2.5, 3, 4, 8])
def test_levels_and_zeros_hold_per_channel(bits):
    weight = torch.randn(32, 5, 3, 3)
    weight[3] = 0  # an empty channel
    weight[4] = weight[4].abs() + 1  # one that is all positive
    weight[:, 0] = 0
    scale, zero_point = range_linear(*channel_range(weight), bits)
    value = fake_quantize(weight, scale, zero_point, quant_max(bits))
    assert max(channel.unique().numel() for channel in value) <= quant_max(bits) + 1
    assert (value[weight == 0] == 0).all()
    assert value.isfinite().all()


def test_gradient_passes_inside_the_range_only():
    x = torch.tensor([-5.0, 0.0, 1.0, 5.0], requires_grad=True)
    scale, zero_point = range_linear(torch.tensor(-1.0), torch.tensor(2.0), 2)
    fake_quantize(x, scale, zero_point, 3).sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 0]


def test_gradient_of_weights_is_the_identity():
    x = torch.tensor([-5.0, 0.3, 5.0], requires_grad=True)
    scale, zero_point = range_linear(torch.tensor(-1.0), torch.tensor(2.0), 2)
    fake_quantize(x, scale, zero_point, 3, clip_gradient=False).sum().backward()
    assert x.grad.tolist() == [1, 1, 1]


def test_compiled_gradients_are_clipped_where_eager_ones_are():
    scale, zero_point = range_linear(torch.tensor(-1.0), torch.tensor(2.0), 4)  # steps of 0.2: codes reach -1.1 .. 2.1
    x = torch.tensor([-5.0, -1.11, -1.09, 0.0, 2.09, 2.11, 5.0])

    def gradient(function):
        given = x.clone().requires_grad_()
        (function(given, scale, zero_point, 15) * torch.arange(1.0, 8.0)).sum().backward()
        return given.grad.tolist()

    assert gradient(fake_quantize) == [0, 0, 3, 4, 5, 0, 0]
    assert gradient(torch.compile(fake_quantize, backend="aot_eager")) == [0, 0, 3, 4, 5, 0, 0]


LARGEST = {"one bit": (1, 1), "three levels": (1.6, 2), "five levels": (2.4, 4), "a byte": (8, 255)}


@pytest.mark.parametrize(("bits", "largest"), LARGEST.values(), ids=LARGEST.keys())
def test_quant_max_by_hand(bits, largest):
    assert quant_max(bits) == largest


def test_channel_range_keeps_dimensions_and_takes_a_vector_whole():
    low, high = channel_range(torch.tensor([[[1.0, -2.0]], [[0.5, 3.0]]]))
    assert low.tolist() == [[[-2.0]], [[0.5]]]
    assert high.tolist() == [[[1.0]], [[3.0]]]
    low, high = channel_range(torch.tensor([2.0, -1.0]))
    assert (low.item(), high.item()) == (-1, 2)


def test_range_linear_of_no_width_has_the_scale_1():
    scale, zero_point = range_linear(torch.zeros(2, 1), torch.zeros(2, 1), 4)
    assert scale.tolist() == [[1], [1]]
    assert zero_point.tolist() == [[0], [0]]


def test_range_linear_of_negative_values_has_zero_as_its_last_code():
    scale, zero_point = range_linear(torch.tensor(-3.0), torch.tensor(-1.0), 2)
    assert (scale.item(), zero_point.item()) == (1, -3)
    # 2.5 bits have no code 5, which -round(scale * low) would ask for.
    _, zero_point = range_linear(torch.tensor(-3.0), torch.tensor(0.0), 2.5)
    assert zero_point.item() == -4


def test_codes_round_halves_to_even_and_clamp():
    x = torch.tensor([-1.0, 0.5, 1.5, 2.5, 9.0])
    assert codes(x, torch.tensor(1.0), torch.tensor(0.0), 3).tolist() == [0, 0, 2, 2, 3]


def test_clip_bounds_lie_half_a_step_beyond_the_levels():
    assert clip_bounds(2.0, -1.0, 3) == (-0.75, 1.25)


def test_quantize_blocks_by_hand():
    x = torch.tensor([-1.0, 0.4, 0.6, 9.0])
    assert quantize_blocks(x, 1.0, -1.0, 3).tolist() == [-1, 0, 1, 2]
    assert quantize_blocks(x, 2.0, 0.0, 3).tolist() == [0, 0.5, 0.5, 1.5]


def test_straight_through_is_exactly_the_value():
    x = torch.tensor([1e8, 1.0], requires_grad=True)
    value = torch.tensor([0.1, 0.3])
    out = StraightThrough.apply(x, value)
    assert torch.equal(out, value)
    out.backward(torch.tensor([2.0, 3.0]))
    assert x.grad.tolist() == [2, 3]


def number(value):
    return torch.tensor(float(value))


def test_golden_symmetric_range():
    # 3 bits, 8 levels: integers -3 .. 3 over [-6, 6].
    scale, zero_point = range_symmetric(number(-6), number(2), 3)
    assert (scale.item(), zero_point.item()) == (0.5, -3)
    # Unsigned data use all eight: 0 .. 7 over [0, 14].
    scale, zero_point = range_symmetric(number(0), number(14), 3, unsigned=True)
    assert (scale.item(), zero_point.item()) == (0.5, 0)
    assert range_symmetric(number(0), number(0), 3)[0] == 1


def large(seed):
    torch.manual_seed(seed)
    x = torch.randn(8, 16, 72, 72).to(memory_format=torch.channels_last)
    assert x.numel() > 2 * BLOCK
    return x


@pytest.mark.parametrize("zero_point", [0, -3])
def test_blocks_compute_what_the_whole_tensor_does(zero_point):
    x, grad = large(0), large(1)
    scale, first = number(5.3), number(zero_point)
    ends = []
    for function in (
        lambda t: fake_quantize(t, scale, first, 7),
        lambda t: _FakeQuantize.apply(t, scale, first, 7, True),
    ):
        leaf = x.clone().requires_grad_()
        out = function(leaf)
        out.backward(grad)
        ends.append((out, leaf.grad))
    assert torch.equal(ends[0][0], ends[1][0])
    assert torch.equal(ends[0][1], ends[1][1])
    assert ends[0][0].stride() == x.stride()


def test_tensor_range_of_any_layout():
    x = large(0)
    for view in (x, x.contiguous(), x[:, ::2], x.flatten(1), x[0, 0, 0, 0]):
        assert tensor_range(view) == (view.min(), view.max())


def test_signed_integers():
    assert [signed_min(largest) for largest in (255, 15, 7, 4, 2)] == [-128, -8, -4, -2, -1]
