"""The challenge's rules by hand: storage, products, accumulators, early exits."""

import pytest
import torch
from torch import nn

from micronet_cli.layers.effective_weight import attach_effective_weight, attach_mask
from micronet_cli.layers.fake_quantize import (
    ActivationFakeQuantize,
    FakeQuantize,
    WeightFakeQuantize,
    attach_input_fake_quantize,
)
from micronet_cli.scoring import rule_set, score, score_with
from micronet_cli.scoring.charges import MASKS, MULTIPLY, WEIGHTS
from micronet_cli.scoring.official import Official


def linear(inputs=64, outputs=8, bias=False):
    torch.manual_seed(0)
    layer = nn.Linear(inputs, outputs, bias)
    layer.weight.data.uniform_(0.5, 1.0)
    return layer


def part(model, heading, shape=(1, 1, 64), **options):
    report = score_with(nn.Sequential(model), rule_set("official", **options), shape)
    return report.parts()[heading]


def quantize(layer, weight_bits=None, input_bits=None):
    if weight_bits:
        attach_effective_weight(layer).fake_quantize = WeightFakeQuantize(weight_bits)
    if input_bits:
        attach_input_fake_quantize(layer, ActivationFakeQuantize(input_bits))
    return layer


def test_worked_example_of_3m_parameters_and_500m_operations_is_0_862():
    base = Official(task="imagenet").base((3, 224, 224))
    assert round(3e6 / base.params + 500e6 / base.ops, 3) == 0.862


@pytest.mark.parametrize(("weight_bits", "input_bits", "cost"), [(3, 5, 5 / 32), (None, 8, 1.0), (8, None, 1.0)])
def test_multiply_costs_the_wider_operand(weight_bits, input_bits, cost):
    multiplies = part(quantize(linear(), weight_bits, input_bits), MULTIPLY)
    assert multiplies.multiplications == 64 * 8
    assert multiplies.math_ops == 64 * 8 * cost


def test_binary_weight_times_float_costs_one_bit():
    layer = quantize(linear(), weight_bits=1)
    with torch.no_grad():
        # Range-linear at 1 bit keeps 0 a member, so plus and minus one magnitude is made by hand.
        class Sign(FakeQuantize):
            def forward(self, weight):
                return weight.mean() * torch.where(weight > 0.75, 1.0, -1.0)

            def qparams_bits(self, shape):
                return 32

        attach_effective_weight(layer).fake_quantize = Sign(1)
    assert part(layer, MULTIPLY).math_ops == 64 * 8 * 1 / 32
    # Asymmetric codes have no sign bit of their own.
    assert part(quantize(layer, input_bits=4), MULTIPLY).math_ops == 64 * 8 * 4 / 32


def test_one_bit_weights_that_are_not_plus_and_minus_cost_their_inputs_bits():
    layer = linear()
    with torch.no_grad():
        layer.weight[:, :32] = 0.1  # rounds to 0
    assert part(quantize(layer, weight_bits=1), MULTIPLY).math_ops == 32 * 8


def test_mask_is_charged_only_with_zeros_and_only_where_it_is_smaller():
    layer = linear()
    assert MASKS not in score_with(layer, Official(), (1, 1, 64)).parts()
    with torch.no_grad():
        layer.weight[:, :32] = 0
    assert part(layer, WEIGHTS).storage_bits == 32 * 32 * 8
    assert part(layer, MASKS).storage_bits == 64 * 8
    # At 2 bits a quarter of zeros saves half a bit an element and a mask costs one: dense is smaller.
    with torch.no_grad():
        layer = linear()
        layer.weight[:, :16] = 0
    parts = score_with(quantize(layer, weight_bits=2), Official(), (1, 1, 64)).parts()
    assert parts[WEIGHTS].storage_bits == 64 * 8 * 2
    assert MASKS not in parts


def test_block_mask_of_512_by_128_costs_4096_bits():
    layer = linear(128, 512)
    with torch.no_grad():
        layer.weight[:, 8:] = 0
    assert part(layer, MASKS, (1, 1, 128), block=[4, 4]).storage_bits == 4096
    assert part(layer, WEIGHTS, (1, 1, 128), block=[4, 4]).storage_bits == 512 * 8 * 32
    assert part(layer, MASKS, (1, 1, 128)).storage_bits == 512 * 128


def test_a_few_zeros_by_chance_do_not_make_a_plain_tensor_sparse():
    layer = linear(640, 8)
    with torch.no_grad():
        layer.weight[0, 0] = 0
    assert part(layer, MULTIPLY, (1, 1, 640)).multiplications == 640 * 8
    attach_mask(layer)
    assert part(layer, MULTIPLY, (1, 1, 640)).multiplications == 640 * 8 - 1


def test_dot_product_adds_one_less_than_its_nonzeros_and_one_for_a_bias():
    layer = linear(bias=True)
    with torch.no_grad():
        layer.weight[0] = 0  # an empty channel adds nothing but its bias
        layer.weight[1, 1:] = 0
    figures = score(layer, (1, 1, 64))
    assert figures["multiplications"] == 6 * 64 + 1
    assert figures["additions"] == 6 * 63 + 8


def test_freebie_halves_parameters_and_multiplications_only():
    layer, plain = linear(), score(linear(), (1, 1, 64))
    figures = score(layer, (1, 1, 64), freebie=True)
    assert figures["storage_params"] == plain["storage_params"] / 2
    assert figures["math_ops"] == plain["multiplications"] / 2 + plain["additions"]


def test_freebie_with_any_quantised_tensor_is_refused_by_name():
    with pytest.raises(ValueError, match=r"freebie=true.*input_fake_quantize"):
        score(quantize(linear(), input_bits=8), (1, 1, 64), freebie=True)


def test_batch_norm_folds_into_the_convolution_before_it_and_is_charged_elsewhere():
    conv = nn.Conv2d(2, 4, 3, bias=False)
    folded = score(nn.Sequential(conv, nn.BatchNorm2d(4)), (2, 6, 6))
    assert folded["storage_params"] == 4 * 18 + 4
    assert folded["additions"] == 4 * 16 * (17 + 1)
    alone = score(nn.Sequential(nn.BatchNorm2d(2), conv), (2, 6, 6))
    assert alone["storage_params"] == 4 * 18 + 4
    assert alone["multiplications"] == 2 * 36 + 4 * 16 * 18


def test_batch_norm_does_not_fold_where_the_convolution_is_read_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn = nn.Conv2d(2, 4, 1, bias=False), nn.BatchNorm2d(4)

        def forward(self, x):
            y = self.conv(x)
            return y + self.bn(y)

    figures = score(Twice(), (2, 3, 3))
    assert figures["storage_params"] == 8 + 2 * 4
    assert figures["additions"] == 36 * 1 + 36 + 36  # convolution, BatchNorm, sum


def test_batch_norm_does_not_fold_where_the_network_returns_its_input_too():
    class Both(nn.Sequential):
        def forward(self, x):
            y = self[0](x)
            return y, self[1](y)

    figures = score(Both(nn.Conv2d(2, 4, 1, bias=False), nn.BatchNorm2d(4)), (2, 3, 3))
    assert figures["storage_params"] == 8 + 2 * 4


def test_batch_norm_executed_twice_is_stored_once():
    conv, norm = nn.Conv2d(3, 3, 1, bias=False), nn.BatchNorm2d(3)
    assert score(nn.Sequential(conv, norm, conv, norm), (3, 4, 4))["storage_params"] == 9 + 3
    assert score(nn.Sequential(norm, norm), (3, 4, 4))["storage_params"] == 2 * 3


def test_channel_shuffle_is_a_product_with_a_permutation():
    class Shuffle(nn.Module):
        def forward(self, x):
            n, c, h, w = x.shape
            return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)

    for module in (Shuffle(), nn.ChannelShuffle(2)):
        figures = score(module, (6, 4, 4))
        assert (figures["multiplications"], figures["additions"]) == (6 * 16, 0)
        assert figures["storage_params"] == (6 * 32 + 36) / 32
        assert figures["dense_storage_bytes"] == figures["storage_bytes"]


class EarlyExit(nn.Module):
    """Two stages, a classifier after each; the whole network runs where the first is not sure."""

    def __init__(self):
        super().__init__()
        self.first, self.head1 = nn.Linear(8, 8, bias=False), nn.Linear(8, 2, bias=False)
        self.second, self.head2 = nn.Linear(8, 16, bias=False), nn.Linear(16, 2, bias=False)

    def forward(self, x):
        x = self.first(x)
        early = self.head1(x)
        return early + self.head2(self.second(x))


def test_early_exits_score_the_mean_over_examples_and_store_everything():
    model, shape = EarlyExit(), (1, 1, 8)
    whole, part = score(model, shape), score(model, shape, paths={"head1": 0.75})
    first, rest = 64 + 16, 128 + 32
    assert whole["multiplications"] == first + rest
    assert part["multiplications"] == first + 0.25 * rest
    assert part["additions"] == (8 * 7 + 2 * 7) + 0.25 * (16 * 7 + 2 * 15 + 2)
    assert part["storage_params"] == whole["storage_params"]


def test_early_exit_after_a_module_that_is_not_executed_is_refused():
    with pytest.raises(ValueError, match="paths=head3"):
        score(EarlyExit(), (1, 1, 8), paths={"head3": 0.5})
