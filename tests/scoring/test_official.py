"""The challenge's rules by hand: storage, products, accumulators, early exits."""

from typing import NamedTuple

import numpy as np
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
from micronet_cli.scoring.charges import ACCUMULATE, BIAS_ADD, BIASES, MASKS, MULTIPLY, SCALES, WEIGHTS
from micronet_cli.scoring.official import Official
from micronet_cli.trace.records import Dot, ExecutedQuantizer, Op, Stored, TracedNetwork, Value


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


class Operands(NamedTuple):
    """Bits of a product's operands, None for floats, and the cost of a multiply in operations of 32 bits."""

    weight_bits: int | None
    input_bits: int | None
    cost: float


OPERANDS = {
    "both quantised": Operands(weight_bits=3, input_bits=5, cost=5 / 32),
    "float weight": Operands(weight_bits=None, input_bits=8, cost=1.0),
    "float input": Operands(weight_bits=8, input_bits=None, cost=1.0),
}


@pytest.mark.parametrize("case", OPERANDS.values(), ids=OPERANDS)
def test_multiply_costs_the_wider_operand(case):
    cost = case.cost
    multiplies = part(quantize(linear(), case.weight_bits, case.input_bits), MULTIPLY)
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


def product(nonzeros=(5, 3), extremes=None, codes=None, quantized=True, bias=None):
    """A layer of 4-bit weights on 4-bit inputs: 2 channels of 6 weights, each used once."""
    dot = Dot(0, bias, terms=6, nonzeros=np.array(nonzeros), repeats=1, outputs=2, extremes=extremes)
    quantizers = {
        "w": ExecutedQuantizer("w", "fc", bits=4, stored_bits=64),
        "x": ExecutedQuantizer("x", "fc", bits=4, stored_bits=36, codes=codes),
    }
    return TracedNetwork(
        ops=(Op("mm", "fc", (0,), (1,), elements=2, dot=dot),),
        values=(Value(6, 0, quantizers=frozenset(["x"]) if quantized else None), Value(2, 1)),
        stored=(Stored("fc.weight", "fc", 12, float(sum(nonzeros)), quantizer="w"), Stored("fc.bias", "fc", 2, 2)),
        quantizers=quantizers,
        input_shape=(1, 1, 6),
    )


def accumulation(network, **options):
    """Additions of the products, and their operations times 32: bits."""
    (charge,) = (c for c in Official(**options).math(network) if c.part == ACCUMULATE)
    return charge.additions, charge.math_ops * 32


def test_product_by_hand():
    multiply, accumulate, bias = Official().math(product(bias=1))
    assert (multiply.part, multiply.multiplications, multiply.math_ops, multiply.bits) == (MULTIPLY, 8, 1, "4x4")
    assert (accumulate.part, accumulate.additions, accumulate.math_ops) == (ACCUMULATE, 6, 6)
    assert (bias.part, bias.additions, bias.math_ops) == (BIAS_ADD, 2, 2)


def stored_bits(network, **options):
    """Bits stored under each heading."""
    found = {}
    for charge in Official(**options).storage(network):
        found[charge.part] = found.get(charge.part, 0) + charge.storage_bits
    return found


def test_storage_by_hand():
    # 8 of 12 weights at 4 bits and a mask of 12 make 44 bits, under the dense 48.
    expected = {WEIGHTS: 32, MASKS: 12, BIASES: 64, SCALES: 64 + 36}
    assert stored_bits(product(bias=1)) == expected


def test_storage_leaves_out_what_no_operation_reads():
    assert BIASES not in stored_bits(product())


class Form(NamedTuple):
    """Non-zeros of 64 elements of 8 bits, (block size, kept, blocks), and the bits of the values and of the mask."""

    nonzeros: int
    blocks: tuple | None
    values: int
    mask: int | None


FORMS = {
    "dense: 512 bits": Form(nonzeros=64, blocks=None, values=512, mask=None),
    "bitmask: 80 + 64": Form(nonzeros=10, blocks=None, values=80, mask=64),
    "blocks: 16 + 4": Form(nonzeros=10, blocks=(16, 1, 4), values=128, mask=4),
    "bitmask beats blocks": Form(nonzeros=10, blocks=(16, 3, 4), values=80, mask=64),
    "all zero": Form(nonzeros=0, blocks=None, values=0, mask=64),
    "all zero in blocks": Form(nonzeros=0, blocks=(16, 0, 4), values=0, mask=4),
}


@pytest.mark.parametrize("case", FORMS.values(), ids=FORMS)
def test_weight_takes_the_smallest_of_three_forms(case):
    stored = Stored("fc.weight", "fc", 64, case.nonzeros, float_bits=8, kept_blocks=case.blocks)
    dot = Dot(0, None, terms=64, nonzeros=np.array([case.nonzeros]), repeats=1, outputs=1)
    network = TracedNetwork(
        (Op("mm", "fc", (0,), (1,), dot=dot),), (Value(64, 0), Value(1, 1)), (stored,), {}, (1, 1, 64)
    )
    found = stored_bits(network)
    assert found[WEIGHTS] == case.values
    assert found.get(MASKS) == case.mask


def operation(kind, *bits, constant=False, **options):
    """Cost of one operation on 32 elements whose inputs have these bits."""
    values = tuple(Value(32, index, width) for index, width in enumerate(bits))
    op = Op(kind, "act", tuple(range(len(bits))), (len(bits),), constant=constant, elements=32, taken=32)
    network = TracedNetwork((op,), (*values, Value(32, len(bits))), (), {}, (1, 1, 32))
    return sum(charge.math_ops for charge in Official(**options).math(network))


def test_operation_costs_its_widest_input():
    assert operation("add", 16, 16) == 16
    assert operation("add", 16, 32) == 32
    assert operation("mul", 8, constant=True) == 32  # a constant of the program is a float
    assert operation("view", 32) == 0


def test_option_for_non_linearities_leaves_other_operations_alone():
    assert operation("relu", 32, nonlinearity_bits=4) == 4
    assert operation("add", 32, 32, nonlinearity_bits=4) == 32


def attention(*quantizers):
    """A product of two activations, each with the codes of these quantisers of 3 and of 8 bits, or floats: 5 terms."""
    values = [Value(10, index, quantizers=names and frozenset(names)) for index, names in enumerate(quantizers)]
    dot = Dot(None, None, terms=5, nonzeros=np.array([5]), repeats=4, outputs=4)
    found = {
        "q": ExecutedQuantizer("q", "attn", bits=3, stored_bits=64),
        "k": ExecutedQuantizer("k", "attn", bits=8, stored_bits=64),
    }
    op = Op("bmm", "attn", (0, 1), (2,), elements=4, dot=dot)
    return TracedNetwork((op,), (*values, Value(4, 2)), (), found, (1, 5, 2))


def test_a_product_of_activations_has_bits_of_both_operands():
    (multiplies, _) = Official().math(attention(["q"], ["k"]))
    assert (multiplies.bits, multiplies.math_ops) == ("3x8", 20 * 8 / 32)
    (multiplies, _) = Official().math(attention(["q"], None))
    assert (multiplies.bits, multiplies.math_ops) == ("3x32", 20)


def test_integers_of_two_activations_are_added_as_those_of_a_weight():
    # 4 outputs of 5 terms: 16 additions at 3 + 8 + ceil(log2 5) bits; a tree has 2 at 11, 1 at 12 and 1 at 13.
    assert accumulation(attention(["q"], ["k"]), accumulator="integer") == (16, 16 * 14)
    assert accumulation(attention(["q"], ["k"]), accumulator="adder_tree") == (16, 4 * (2 * 11 + 12 + 13))
    assert accumulation(attention(["q"], ["k"])) == (16, 16 * 32)


@pytest.mark.parametrize("left", [None, ["q", "k"]], ids=["float", "codes of two"])
def test_additions_of_an_operand_that_is_not_codes_of_one_quantiser_take_32_bits(left):
    assert accumulation(attention(left, ["k"]), accumulator="integer") == (16, 16 * 32)
