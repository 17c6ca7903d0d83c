"""Networks quantised by others: scored as a count by hand says, whoever wrote the quantiser."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from micronet_cli.layers.effective_weight import attach_effective_weight
from micronet_cli.layers.fake_quantize import WeightFakeQuantize
from micronet_cli.scoring import rule_set, score, score_with
from micronet_cli.scoring.rules import UnknownOperation
from tests.trace.written_out import SHAPE, Written

CODES = torch.arange(-4.0, 4.0).view(4, 2, 1, 1)


class ByHand(nn.Module):
    """4-bit inputs and 3-bit weights in operators, a BatchNorm and a ReLU."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(CODES * 0.1)
        self.weight_step = nn.Parameter(torch.tensor(0.1))
        self.input_step = nn.Parameter(torch.tensor(0.5))
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x):
        x = (x / self.input_step).round().clamp(0, 15) * self.input_step
        weight = (self.weight / self.weight_step).round().clamp(-4, 3) * self.weight_step
        return self.norm(nn.functional.conv2d(x, weight)).relu()


def test_rounds_and_clamps_cost_what_a_count_by_hand_says():
    figures = score(ByHand(), SHAPE)
    # 7 non-zeros at 16 positions, 4 x 3 bits; one zero: three channels of two weights; a bias and a ReLU on 64 values.
    assert figures["multiplications"] == 7 * 16 + 64
    assert figures["additions"] == 3 * 16 + 64
    assert figures["math_ops"] == 7 * 16 * 4 / 32 + 3 * 16 + 64 + 64
    # 8 weights of 3 bits and their scale, 4 biases, the input's scale and zero point.
    assert figures["storage_params"] == (8 * 3 + 32 + 4 * 32 + 64) / 32
    assert figures["weight_bits_mean"] == 3
    assert figures["activation_bits_mean"] == 4


class ByTorch(nn.Module):
    """torch's fake_quantize operators before a convolution, on its weight in channels."""

    def __init__(self, quantize, zero_point=0):
        super().__init__()
        self.quantize = quantize
        self.conv = nn.Conv2d(2, 4, 1)
        nn.init.constant_(self.conv.weight, 0.2)
        self.register_buffer("scales", torch.full((4,), 0.1))
        self.register_buffer("zero_points", torch.full((4,), zero_point, dtype=torch.int32))

    def forward(self, x):
        x = self.quantize(x)
        weight = torch.fake_quantize_per_channel_affine(self.conv.weight, self.scales, self.zero_points, 0, -4, 3)
        return nn.functional.conv2d(x, weight, self.conv.bias)


def learnable(x):
    one = torch.tensor([0.1])
    return torch.ops.aten._fake_quantize_learnable_per_tensor_affine(x, one, torch.tensor([3.0]), 0, 15, 1.0)


PER_TENSOR = {
    "numbers": lambda x: torch.fake_quantize_per_tensor_affine(x, 0.1, 3, 0, 15),
    "tensors": lambda x: torch.fake_quantize_per_tensor_affine(x, torch.tensor(0.1), torch.tensor(3), 0, 15),
    "learnable": learnable,
}


@pytest.mark.parametrize("quantize", PER_TENSOR.values(), ids=PER_TENSOR)
def test_torchs_fake_quantize_costs_what_its_codes_say(quantize):
    figures = score(ByTorch(quantize), SHAPE)
    assert figures["math_ops"] == 8 * 16 * 4 / 32 + 4 * 16 + 4 * 16
    assert figures["storage_params"] == (8 * 3 + 4 * 32 + 4 * 32 + 64) / 32


def test_zero_points_of_a_weight_are_stored_at_the_bits_of_its_codes():
    plain = score(ByTorch(PER_TENSOR["numbers"]), SHAPE)
    with_zero_points = score(ByTorch(PER_TENSOR["numbers"], zero_point=1), SHAPE)
    assert with_zero_points["storage_params"] - plain["storage_params"] == 4 * 3 / 32


def test_one_scale_a_channel_of_an_activation_is_an_error_that_says_why():
    def in_channels(x):
        return torch.fake_quantize_per_channel_affine(x, torch.ones(2), torch.zeros(2).int(), 1, 0, 15)

    model = nn.Sequential(ByTorch(in_channels))
    with pytest.raises(UnknownOperation, match=r"in layer '0' has no price.*one scale, not with one a channel"):
        score(model, SHAPE)


def test_rounding_that_is_no_quantiser_is_an_error_that_names_the_layer_and_a_way_out():
    model = nn.Sequential(Written(lambda x, step: x.round()))
    with pytest.raises(UnknownOperation, match=r"'round' in layer '0' has no price.*a clamp between two numbers"):
        score(model, SHAPE)
    with pytest.warns(UserWarning, match=r"'round' in layer '0'.*32 elements counted at 32 bits.*a clamp"):
        figures = score(model, SHAPE, unknown="warn")
    assert figures["activation_bits_mean"] == 32


def test_freebie_is_refused_for_a_quantiser_of_others():
    with pytest.raises(ValueError, match="only where nothing is quantised"):
        score(ByHand(), SHAPE, freebie=True)


@pytest.mark.parametrize("accumulator", ["integer", "adder_tree"])
def test_accumulators_are_as_wide_as_codes_allow(accumulator):
    # 4 + 3 bits and a carry at most, or 4 + 3 bits at the first and only level.
    report = score_with(ByHand(), rule_set("official", accumulator=accumulator), SHAPE)
    width = {"integer": 8, "adder_tree": 7}[accumulator]
    assert report.parts()["accumulation"].math_ops == 3 * 16 * width / 32


def prepared(observers):
    """torch.ao's QAT-prepared network after a step of training, and one example's shape."""
    quantization = pytest.importorskip("torch.ao.quantization")
    torch.manual_seed(0)  # no weight of these is rounded to 0
    layers = [nn.Conv2d(2, 4, 1, bias=False), nn.ReLU(), nn.Conv2d(4, 4, 1)]
    network = nn.Sequential(quantization.QuantStub(), *layers)
    if observers == "fused":
        network.qconfig = quantization.get_default_qat_qconfig("qnnpack")
    else:
        activation = quantization.FakeQuantize.with_args(
            observer=quantization.MovingAverageMinMaxObserver, quant_min=0, quant_max=255
        )
        weight = quantization.FakeQuantize.with_args(
            observer=quantization.MovingAveragePerChannelMinMaxObserver,
            quant_min=-128,
            quant_max=127,
            dtype=torch.qint8,
            qscheme=torch.per_channel_symmetric,
        )
        network.qconfig = quantization.QConfig(activation=activation, weight=weight)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated in favour of torchao
        network = quantization.prepare_qat(network.train())
    network(torch.rand(2, *SHAPE))
    return network, quantization


@pytest.mark.parametrize(
    ("observers", "scales"), [pytest.param("fused", 2, id="fused"), pytest.param("apart", 8, id="apart")]
)
def test_torch_aos_qat_network_multiplies_its_eight_bits(observers, scales):
    network, quantization = prepared(observers)
    network.apply(quantization.disable_observer)
    figures = score(network, SHAPE)
    additions = 16 * (4 + 3 * 4 + 4)
    assert figures["math_ops"] == 16 * (8 + 16 + 4) * 8 / 32 + additions
    # The input and what the convolutions make have a scale and a zero point each.
    assert figures["storage_params"] == (24 * 8 + 4 * 32 + scales * 32 + 3 * 64) / 32


def test_observers_that_run_are_an_error_that_names_the_way_out_and_leave_the_network_as_it_was():
    network, _ = prepared("apart")
    with torch.no_grad():
        network[1].weight.mul_(2)  # which its observer has not seen
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(UnknownOperation, match=r"'aminmax'.*disable_observer"):
        score(network, SHAPE)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_fused_observers_observe_nothing():
    network, _ = prepared("fused")
    before = copy.deepcopy(network.state_dict())
    score(network, SHAPE)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def quantised(bits, symmetric, granularity):
    torch.manual_seed(0)
    layers = [nn.Conv2d(8, 16, 3), nn.Conv2d(16, 16, 3, groups=16), nn.ConvTranspose2d(16, 16, 1), nn.Flatten()]
    model = nn.Sequential(*layers, nn.LazyLinear(20))
    model(torch.zeros(1, 8, 6, 6))
    for layer in model:
        # A transposed convolution's scales would go with its inputs: its own quantiser is per tensor.
        if hasattr(layer, "weight"):
            own = "per_tensor" if isinstance(layer, nn.ConvTranspose2d) else granularity
            attach_effective_weight(layer).fake_quantize = WeightFakeQuantize(bits, own, symmetric)
    return model


@pytest.mark.parametrize("bits", [2, 3, 4, 5])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
def test_our_quantised_network_costs_the_same_without_its_modules(bits, symmetric, granularity):
    model = quantised(bits, symmetric, granularity)
    report = score_with(model, rule_set("official"), (8, 6, 6))
    for layer in model:
        if hasattr(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight")
    stripped = score_with(model, rule_set("official"), (8, 6, 6))
    ours = report.parts()
    plain = stripped.parts()
    assert plain["weights"] == ours["weights"]
    assert stripped.total.math_ops == report.total.math_ops
    assert stripped.metrics()["weight_bits_mean"] == report.metrics()["weight_bits_mean"] == bits
    # Codes that happen to fit without a zero point need none.
    assert 0 < plain["scales"].storage_bits <= ours["scales"].storage_bits


def test_a_weight_leaves_its_grid_when_it_is_trained():
    layer = nn.Conv2d(8, 8, 3)
    with torch.no_grad():
        layer.weight.copy_((layer.weight * 100).round())
    assert score(layer, (8, 4, 4))["weight_bits_mean"] < 8
    with torch.no_grad():
        layer.weight.add_(torch.rand_like(layer.weight))
    assert score(layer, (8, 4, 4))["weight_bits_mean"] == 32


def test_scales_that_go_with_input_channels_are_no_grid_of_a_layer():
    torch.manual_seed(0)
    scales = torch.rand(1, 8)
    layer = nn.Linear(8, 64, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.randint(-4, 4, (64, 8)) * scales)
    assert score(layer, (1, 1, 8))["weight_bits_mean"] == 32
