"""The rules' own examples, by hand: storage, prices, options."""

from dataclasses import fields

import pytest
import torch
from omegaconf import OmegaConf
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
from micronet_cli.scoring.rules import Base, UnknownOperation
from tests.scoring.recipe import CONF


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


PRICED = {
    nn.ReLU(): (1, 0),
    nn.ReLU6(): (2, 0),
    nn.SiLU(): (3, 1),
    nn.Sigmoid(): (2, 1),
    nn.Hardswish(): (4, 1),
    nn.GELU(): (4, 1),
    nn.MaxPool2d(2): (0, 0),
    nn.Dropout(): (0, 0),
    nn.Identity(): (0, 0),
}


@pytest.mark.parametrize(("module", "each"), PRICED.items(), ids=lambda x: type(x).__name__)
def test_price_of_an_activation_function(module, each):
    figures = score(nn.Sequential(module), (2, 4, 4))
    assert (figures["multiplications"], figures["additions"]) == (32 * each[0], 32 * each[1])


@pytest.mark.parametrize(("bounds", "each"), [({"min": 0}, 1), ({"max": 6}, 1), ({"min": 0, "max": 6}, 2)])
def test_clamp_multiplies_once_a_bound(bounds, each):
    class Clamp(nn.Module):
        def forward(self, x):
            return x.clamp(**bounds)

    assert score(Clamp(), (2, 4, 4))["multiplications"] == 32 * each


def test_relu_costs_its_inputs_bits_and_other_functions_32():
    for module, ops in ((nn.ReLU(), 32 * 4 / 32), (nn.SiLU(), 32 * 4), (nn.AdaptiveAvgPool2d(1), 2 * 16)):
        model = nn.Sequential(ActivationFakeQuantize(4), module)
        assert score(model, (2, 4, 4))["math_ops"] == ops
    assert score(nn.SiLU(), (2, 4, 4), nonlinearity_bits=8)["math_ops"] == 32 * 4 * 8 / 32


def test_global_average_pool_multiplies_once_a_channel():
    figures = score(nn.AdaptiveAvgPool2d(1), (2, 4, 4))
    assert (figures["multiplications"], figures["additions"]) == (2, 2 * 15)


def test_average_pool_counts_its_windows():
    figures = score(nn.AvgPool2d(2), (2, 4, 4))
    assert (figures["multiplications"], figures["additions"]) == (8, 8 * 3)


def test_layer_norm_and_softmax_by_composition():
    figures = score(nn.LayerNorm(8), (1, 2, 8))  # rows of 8: 2, elements: 16
    assert (figures["multiplications"], figures["additions"]) == (2 * 16 + 3 * 2 + 16, 3 * 16 - 2 + 16)
    figures = score(nn.Softmax(-1), (1, 2, 8))
    assert (figures["multiplications"], figures["additions"]) == (2 * 16, 2 * 16 - 2)


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


def test_layout_changes_are_free():
    class Layout(nn.Module):
        def forward(self, x):
            return x.permute(0, 2, 3, 1).flatten(1, 2).transpose(1, 2).contiguous()

    assert score(Layout(), (6, 4, 4))["math_ops"] == 0


class Bessel(nn.Module):
    def forward(self, x):
        return torch.special.bessel_j0(x)


def test_operation_without_a_price_is_an_error_that_names_it_and_its_layer():
    model = nn.Sequential()
    model.add_module("odd", Bessel())
    with pytest.raises(UnknownOperation, match=r"'special_bessel_j0' in layer 'odd'"):
        score(model, (1, 2, 2))


def test_operation_without_a_price_can_count_at_32_bits():
    with pytest.warns(UserWarning, match="4 elements counted at 32 bits"):
        assert score(Bessel(), (1, 2, 2), unknown="warn")["math_ops"] == 4


@pytest.mark.parametrize(
    "options",
    [
        {"weight_sparsity": 1.0},
        {"unknown": "ignore"},
        {"accumulator": "int8"},
        {"task": "mnist"},
        {"nonlinearity_bits": 0},
        {"input_shape": [224, 224]},
        {"paths": {"head": 1.5}},
        {"block": [0, 4]},
        {"block": [4, "x"]},
        {"compare": "oficial"},
        {"compare": "collections.OrderedDict"},
    ],
)
def test_bad_option_is_named_with_its_value(options):
    (name, value), *_ = options.items()
    with pytest.raises(ValueError, match=f"{name}=") as error:
        Official(**options)
    assert str(value) in str(error.value)


def test_task_follows_the_image_size_and_a_base_can_be_added():
    layer = nn.Conv2d(3, 1, 1)
    small, large = score(layer, (3, 32, 32)), score(layer, (3, 224, 224))
    assert small["storage_score"] == 4 / 36.5e6
    assert large["storage_score"] == 4 / 6.9e6
    own = score(layer, (3, 32, 32), task="own", bases={"own": Base(params=8, ops=1e3, top1=90)})
    assert own["storage_score"] == 0.5


@pytest.mark.parametrize("name", ["official", "seed2019"])
def test_yaml_lists_every_option_at_its_default(name):
    cfg = OmegaConf.to_container(OmegaConf.load(CONF / f"score/{name}.yaml"))
    target = cfg.pop("_target_")
    assert rule_set(target, **cfg) == rule_set(name)
    assert list(cfg) == [field.name for field in fields(Official)]


def test_unknown_rule_set_is_refused():
    with pytest.raises(ValueError, match="rules=unofficial"):
        rule_set("unofficial")


def test_seed2019_charges_a_float_convolution_that_feeds_another():
    model = nn.Sequential(nn.Conv2d(2, 4, 1, bias=False), nn.Conv2d(4, 2, 1, bias=False))
    figures = score(model, (2, 3, 3), "seed2019")
    # 8 weights each; (8 - 1) + 1 additions a position; 3 operations an element of each output.
    assert figures["math_ops"] == 2 * 8 * 9 + 2 * 8 * 9 + 3 * 9 * (4 + 2)


def test_seed2019_refuses_what_its_arithmetic_does_not_know():
    with pytest.raises(ValueError, match="accumulator=integer"):
        rule_set("seed2019", accumulator="integer")
