"""Range-linear rounding by hand, and the gradients that pass it."""

import pytest
import torch

from micronet_cli.functional.quantization import channel_range, codes, fake_quantize, quant_max, range_linear


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
